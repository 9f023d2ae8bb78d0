"""From a request body to a run that has begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langgraph.types import Command, Send

from ..runs.request import RunRequest
from .access import require_thread, take_thread
from .bodies import CommandBody, ConfigBody, CreateRun
from .filters import checked_modes
from .graphs import ServedGraph, context_of
from .ids import system_assistant_id
from .problems import THREAD_NOT_FOUND, not_found, unprocessable

if TYPE_CHECKING:
    from ..replica import Replica
    from .endpoint import Call

_KEPT = frozenset(
    {
        "input", "command", "config", "context", "stream_mode", "stream_subgraphs", "interrupt_before",
        "interrupt_after", "checkpoint", "checkpoint_id", "durability",
    }
)  # fmt: skip
_CLIENT_CONFIG = ("tags", "recursion_limit", "max_concurrency")
_OURS = frozenset({"thread_id", "run_id", "user_id", "assistant_id", "graph_id", "checkpoint_map"})


async def prepared(call: Call, run_id: str) -> RunRequest:
    """The run that the body asks for, checked before a thread is taken, on a thread that this user may use."""
    body: CreateRun = call.body
    graph = _graph(call, body)
    modes = _modes(body)
    given = _input(body)
    config = run_config(body, _identity(call, graph, run_id))
    await _open_thread(call, body)
    return _request(call, body, graph, run_id, modes, given, config)


def _graph(call: Call, body: CreateRun) -> ServedGraph:
    if body.webhook is not None:
        raise unprocessable("webhook: not available")
    if body.after_seconds:
        raise unprocessable("after_seconds: not available")
    graph = call.gateway.graph_of(body.assistant_id)
    if graph is None:
        raise unprocessable(f"assistant_id: there is no assistant {body.assistant_id!r}")
    if body.multitask_strategy in ("interrupt", "rollback"):
        raise unprocessable(f"multitask_strategy: {body.multitask_strategy!r} is not available")
    return graph


def _modes(body: CreateRun) -> tuple[str, ...]:
    given = body.stream_mode or "values"
    return checked_modes((given,) if isinstance(given, str) else tuple(given))


def _input(body: CreateRun) -> Any:
    return body.input if body.command is None else _command(body.command)


def _command(body: CommandBody) -> Command[Any]:
    if body.resume is None and body.update is None and body.goto is None:
        raise unprocessable("command: resume, update or goto is wanted")
    update: Any = body.update
    if isinstance(update, list):
        update = [(key, value) for key, value in update]
    goto = body.goto
    steps = [_step(step) for step in goto] if isinstance(goto, list) else () if goto is None else _step(goto)
    return Command(resume=body.resume, update=update, goto=steps)


def _step(step: Any) -> str | Send:
    match step:
        case str():
            return step
        case {"node": str(node), **rest}:
            return Send(node, rest.get("input"))
        case _:
            raise unprocessable("command.goto: a node's name, {node, input}, or a list of them")


async def _open_thread(call: Call, body: CreateRun) -> None:
    """404 for a thread that is not this user's. With `if_not_exists: create` one that nobody has becomes theirs."""
    if body.if_not_exists != "create":
        return await require_thread(call.replica, call.thread_id, call.user_id)
    if not await take_thread(call.replica, call.thread_id, call.user_id, {}):
        raise not_found(THREAD_NOT_FOUND)
    return None


def _request(
    call: Call,
    body: CreateRun,
    graph: ServedGraph,
    run_id: str,
    modes: tuple[str, ...],
    given: Any,
    config: Mapping[str, Any],
) -> RunRequest:
    replica: Replica = call.replica
    names = _names(graph)
    return RunRequest(
        open_graph=lambda: graph.opened(replica, config),
        context_for=lambda opened: context_of(
            opened, replica, body.context, thread_id=call.thread_id, user_id=call.user_id, run_id=run_id
        ),
        input=given,
        thread_id=call.thread_id,
        run_id=run_id,
        user_id=call.user_id,
        assistant_id=names["assistant_id"],
        config=config,
        stream_mode=modes,
        subgraphs=bool(body.stream_subgraphs),
        interrupt_before=body.interrupt_before,
        interrupt_after=body.interrupt_after,
        durability=body.durability,
        multitask_strategy=body.multitask_strategy or "enqueue",
        metadata=body.metadata or {},
        kwargs=body.model_dump(include=set(_KEPT), exclude_none=True),
        thread_metadata=names,
        create_thread=call.user_id is not None or body.if_not_exists == "create",
    )


def run_config(body: CreateRun, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The run's config: what the client may say of it, and who it is by the server's own word."""
    given = body.config or ConfigBody()
    configurable = {**(given.configurable or {}), **(body.checkpoint or {})}
    if body.checkpoint_id is not None:
        configurable["checkpoint_id"] = body.checkpoint_id
    _check_checkpoint(configurable)
    return {
        **given.model_dump(include=set(_CLIENT_CONFIG), exclude_none=True),
        "metadata": {**(given.metadata or {}), **(body.metadata or {}), **identity},
        "configurable": {**{key: value for key, value in configurable.items() if not is_ours(key)}, **identity},
    }


def is_ours(key: str) -> bool:
    """Whether only the server may set this key of `configurable`."""
    return key in _OURS or key.startswith(("__", "langgraph_auth_"))


def _identity(call: Call, graph: ServedGraph, run_id: str) -> dict[str, str]:
    user_id = call.user_id
    user = {} if user_id is None else {"user_id": user_id, "langgraph_auth_user_id": user_id}
    return {"thread_id": call.thread_id, "run_id": run_id, **_names(graph), **user}


def _names(graph: ServedGraph) -> dict[str, str]:
    return {"graph_id": graph.name, "assistant_id": system_assistant_id(graph.name)}


def _check_checkpoint(configurable: Mapping[str, Any]) -> None:
    for name in ("checkpoint_id", "checkpoint_ns"):
        value = configurable.get(name)
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise unprocessable(f"{name}: not a text that names a checkpoint")
