"""From a request body to a run that has begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langgraph.types import Command, Send

from ..runs.checkpoints import saver_errors
from ..runs.request import RunRequest
from ..threads.hidden import HIDDEN_THREAD
from .access import open_thread
from .assistants import assistant_of, with_defaults
from .bodies import CommandBody, ConfigBody, CreateRun
from .filters import checked_modes
from .graphs import ServedGraph, context_of
from .ids import new_run_id, new_thread_id
from .problems import not_found, unprocessable

if TYPE_CHECKING:
    from ..replica import Replica
    from ..runs.registry.assistants import AssistantRow
    from ..runs.registry.records import RunRecord
    from .endpoint import Call
    from .gateway import Gateway

_KEPT = frozenset(
    {
        "input", "command", "config", "context", "stream_mode", "stream_subgraphs", "interrupt_before",
        "interrupt_after", "checkpoint", "checkpoint_id", "durability", "on_completion",
    }
)  # fmt: skip
_CLIENT_CONFIG = ("tags", "recursion_limit", "max_concurrency")
_OURS = frozenset({"thread_id", "run_id", "user_id", "assistant_id", "graph_id"})


async def begun(call: Call, request: RunRequest) -> RunRecord:
    """The run, begun on a thread that this user may use: checked and, where the body says so, made only now."""
    configurable = request.config["configurable"]
    from_checkpoint = configurable.get("checkpoint_id") or configurable.get("checkpoint_map")
    if not request.hidden:
        create = call.body.if_not_exists == "create" and not from_checkpoint
        if await open_thread(call.replica, request.thread_id, call.user_id, create=create):
            configurable[HIDDEN_THREAD] = request.thread_id
    if from_checkpoint:
        await _require_checkpoints(call.replica, configurable)
    return await call.gateway.start(request)


async def prepared(call: Call) -> RunRequest:
    """The run that the body asks for. 404 or 422 for what cannot be run; nothing is taken or made yet.

    A run that names no thread gets one of its own, which is not found by searching.
    """
    call.gateway.refuse_while_draining()
    assistant = await _assistant(call)
    return request_of(
        call.gateway,
        with_defaults(call.body, assistant),
        names_of(assistant),
        thread_id=call.thread_id or new_thread_id(),
        run_id=new_run_id(),
        user_id=call.user_id,
        hidden=not call.thread_id,
    )


def request_of(
    gateway: Gateway,
    body: CreateRun,
    names: Mapping[str, str],
    *,
    thread_id: str,
    run_id: str,
    user_id: str | None,
    hidden: bool = False,
) -> RunRequest:
    """What to execute for this body, by whichever replica: `names` are those of the graph and the assistant, whose
    defaults the body has by now. 422 for what cannot be run here.
    """
    graph = _graph(gateway, names)
    modes = _modes(body)
    given = _input(body)
    config = run_config(body, _identity(names, thread_id, run_id, user_id))
    config["configurable"].setdefault("langgraph_auth_user_id", None)  # nobody, whatever the body's context says
    if hidden:
        config["configurable"][HIDDEN_THREAD] = thread_id
    replica = gateway.replica
    return RunRequest(
        open_graph=lambda: graph.opened(replica, config),
        context_for=lambda opened: context_of(
            opened, replica, body.context, thread_id=thread_id, user_id=user_id, run_id=run_id
        ),
        input=given,
        thread_id=thread_id,
        run_id=run_id,
        user_id=user_id,
        assistant_id=names["assistant_id"],
        config=config,
        stream_mode=modes,
        subgraphs=bool(body.stream_subgraphs),
        interrupt_before=body.interrupt_before,
        interrupt_after=body.interrupt_after,
        durability=body.durability,
        multitask_strategy=body.multitask_strategy or "enqueue",
        metadata=body.metadata or {},
        kwargs={**body.model_dump(include=set(_KEPT), exclude_none=True), "graph_id": graph.name},
        thread_metadata=names,
        create_thread=hidden,
        hidden=hidden,
        on_completion="delete" if hidden and body.on_completion != "keep" else "keep",
        after_seconds=body.after_seconds or 0.0,
    )


async def _assistant(call: Call) -> AssistantRow:
    body: CreateRun = call.body
    if body.webhook is not None:
        raise unprocessable("webhook: not available")
    assistant = await assistant_of(call.gateway, body.assistant_id, call.user_id)
    if assistant is None:
        raise unprocessable(f"assistant_id: there is no assistant {body.assistant_id!r}")
    return assistant


def _graph(gateway: Gateway, names: Mapping[str, str]) -> ServedGraph:
    graph = gateway.graphs.get(names["graph_id"])
    if graph is None:
        raise unprocessable(f"assistant_id: its graph {names['graph_id']!r} is not served here")
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


def run_config(body: CreateRun, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The run's config: what the client may say of it, and who it is by the server's own word."""
    given = body.config or ConfigBody()
    _check_keys({"metadata": body.metadata, "checkpoint": body.checkpoint})
    _check_keys({"config.metadata": given.metadata, "config.configurable": given.configurable})
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


def _identity(names: Mapping[str, str], thread_id: str, run_id: str, user_id: str | None) -> dict[str, str]:
    user = {} if user_id is None else {"user_id": user_id, "langgraph_auth_user_id": user_id}
    return {"thread_id": thread_id, "run_id": run_id, **names, **user}


def names_of(assistant: AssistantRow) -> dict[str, str]:
    return {"graph_id": assistant.graph_id, "assistant_id": assistant.assistant_id}


def _check_keys(documents: Mapping[str, Mapping[str, Any] | None]) -> None:
    """What becomes metadata of checkpoints; of its values the savers take care."""
    for name, document in documents.items():
        if any("\0" in key for key in document or ()):
            raise unprocessable(f"{name}: a key must not have a NUL")


def _check_checkpoint(configurable: Mapping[str, Any]) -> None:
    for name in ("checkpoint_id", "checkpoint_ns"):
        if configurable.get(name) is not None and not _is_text(configurable[name]):
            raise unprocessable(f"{name}: not a text that names a checkpoint")
    parents = configurable.get("checkpoint_map") or {}
    if not isinstance(parents, dict) or not all(map(_is_text, (*parents, *parents.values()))):
        raise unprocessable("checkpoint_map: not an object of texts that name checkpoints")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


async def _require_checkpoints(replica: Replica, configurable: Mapping[str, Any]) -> None:
    """404 for those that the thread does not have: the graph would begin anew, on top of what the thread has."""
    checkpoint_id = configurable.get("checkpoint_id")
    named = {configurable.get("checkpoint_ns") or "": checkpoint_id} if checkpoint_id else {}
    for namespace, checkpoint_id in {**named, **(configurable.get("checkpoint_map") or {})}.items():
        place = {"thread_id": configurable["thread_id"], "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}
        with saver_errors(replica.checkpointer):
            found = await replica.checkpointer.aget_tuple({"configurable": place})
        if found is None:
            raise not_found("Checkpoint not found")
