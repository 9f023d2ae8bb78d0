"""`DeerFlowContext` and `resolve_context`, first the table, then through real agents."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import pickle
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.tools import ToolRuntime
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.runtime import ExecutionInfo, Runtime, ServerInfo
from typing_extensions import TypedDict

from deerflow_replica import AppConfig, DeerFlowContext, app_config_scope, resolve_context
from deerflow_replica.errors import ContextError

pytestmark = pytest.mark.anyio
CONFIG = AppConfig.from_mapping({"weather": {"password": "geheim"}, "tools": [{"a": [1]}]}, env={})
OTHER = AppConfig(log_level="error")
THREAD = UUID(int=7)


def test_the_context_is_frozen_and_in_order() -> None:
    context = DeerFlowContext(CONFIG, "t", "agent", "user", "run")
    names = [field.name for field in dataclasses.fields(context)]
    assert names == ["app_config", "thread_id", "agent_name", "user_id", "run_id"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.thread_id = "u"  # type: ignore[misc]  # the point of the test
    assert pickle.loads(pickle.dumps(context)) == context == copy.deepcopy(context)  # noqa: S301 our own bytes
    assert len({context, DeerFlowContext(CONFIG, "t", "agent", "user", "run")}) == 1
    assert "geheim" not in repr(context)


def test_a_uuid_becomes_text() -> None:
    context = DeerFlowContext(CONFIG, THREAD, run_id=THREAD)  # type: ignore[arg-type]  # ids often are UUIDs
    assert (context.thread_id, context.run_id) == (str(THREAD), str(THREAD))


@pytest.mark.parametrize(
    "values",
    [
        {"app_config": None},
        {"app_config": {}},
        {"thread_id": ""},
        {"thread_id": " \n"},
        {"thread_id": None},
        {"thread_id": 5},
        {"agent_name": 5},
        {"user_id": THREAD},
        {"user_id": b"u"},
        {"run_id": 5},
    ],
)
def test_the_context_checks_itself(values: dict[str, Any]) -> None:
    with pytest.raises(ContextError, match=next(iter(values))):
        DeerFlowContext(**{"app_config": CONFIG, "thread_id": "t", **values})


def execution(thread_id: str | None = None, run_id: str | None = None) -> ExecutionInfo:
    return ExecutionInfo(checkpoint_id="c", checkpoint_ns="", task_id="t", thread_id=thread_id, run_id=run_id)


def run(context: Any, configurable: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """What a hook or tool is given, with the run's config beside it as `ToolRuntime` has it."""
    return SimpleNamespace(context=context, config={"configurable": configurable or {}}, **more)


def server(identity: str) -> ServerInfo:
    user: Any = SimpleNamespace(identity=identity)
    return ServerInfo(assistant_id="a", graph_id="g", user=user)


def test_a_typed_context_is_that_very_object() -> None:
    context = DeerFlowContext(CONFIG, "t")
    assert resolve_context(Runtime(context=context)) is context
    assert resolve_context(run(context, {"thread_id": "other"})) is context


def test_a_mapping_is_validated_and_wins_over_configurable() -> None:
    given = {"app_config": CONFIG, "thread_id": "t", "agent_name": "a", "run_id": "r", "sandbox_id": "ignored"}
    others = {"thread_id": "x", "agent_name": "x", "run_id": "x"}
    assert resolve_context(run(given, others)) == DeerFlowContext(CONFIG, "t", "a", None, "r")
    with app_config_scope(OTHER):
        assert resolve_context(run(given)).app_config is CONFIG
        assert resolve_context(run({"thread_id": "t"})).app_config is OTHER
        assert resolve_context(run({}, others)) == DeerFlowContext(OTHER, "x", "x", None, "x")


def test_none_falls_back_to_scope_configurable_and_execution() -> None:
    with app_config_scope(CONFIG):
        configurable = {"thread_id": THREAD, "agent_name": "a", "run_id": "r"}
        found = resolve_context(run(None, configurable, execution_info=execution("e", "e")))
        assert found == DeerFlowContext(CONFIG, str(THREAD), "a", None, "r")
        found = resolve_context(run(None, execution_info=execution("e", "f")))
        assert found == DeerFlowContext(CONFIG, "e", None, None, "f")
        assert resolve_context(Runtime(execution_info=execution("e"))).thread_id == "e"


def test_who_the_user_is() -> None:
    auth, client = {"langgraph_auth_user_id": "auth", "thread_id": "t"}, {"user_id": "client", "thread_id": "t"}
    with app_config_scope(CONFIG):
        assert resolve_context(run({"user_id": "given"}, auth, server_info=server("srv"))).user_id == "srv"
        assert resolve_context(run({"user_id": "given"}, auth)).user_id == "auth"
        assert resolve_context(run({"user_id": "given"}, client)).user_id == "given"
        assert resolve_context(run(None, client)).user_id is None
        assert resolve_context(run(None, auth)).user_id == "auth"


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"app_config": {}, "thread_id": "t"}, "app_config should be an AppConfig, not dict"),
        ({"app_config": CONFIG, "thread_id": 5}, "thread_id"),
        ({"app_config": CONFIG, "thread_id": "t", "user_id": 5}, "user_id"),
        ({"app_config": CONFIG}, "thread_id"),
        ("context", "not str"),
        ([("thread_id", "t")], "not list"),
        (CONFIG, "not AppConfig"),
        (0, "not int"),
        ({"thread_id": "t"}, "no configuration"),
        (None, "no configuration"),
    ],
)
def test_what_is_wrong_is_said(context: Any, said: str) -> None:
    with pytest.raises(ContextError, match=said):
        resolve_context(run(context))


def test_a_runtime_whose_config_is_something_else_is_asked_no_further() -> None:
    runtime = SimpleNamespace(context={"app_config": CONFIG, "thread_id": "t"}, config=CONFIG)
    assert resolve_context(runtime) == DeerFlowContext(CONFIG, "t")


def test_what_is_missing_is_said_with_both_ways_to_pass_it() -> None:
    with pytest.raises(ContextError) as no_config:
        resolve_context(run(None, {"thread_id": "t"}))
    with app_config_scope(CONFIG), pytest.raises(ContextError) as no_thread:
        resolve_context(run(None))
    for raised in (no_config, no_thread):
        assert "context=" in str(raised.value)
        assert "configurable" in str(raised.value)


@pytest.mark.parametrize("runtime", [None, 5, "t", {}, DeerFlowContext(CONFIG, "t")])
def test_no_runtime_is_an_error(runtime: object) -> None:
    with pytest.raises(ContextError, match=f"not {type(runtime).__name__}"):
        resolve_context(runtime)


# Through real agents


class Model(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self


def answers(rounds: int) -> Iterator[AIMessage]:
    for number in range(rounds):
        yield AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": str(number)}])
        yield AIMessage("done")


class Seen(AgentMiddleware[AgentState[Any], Any]):
    """Notes what every hook and the tool resolve."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[DeerFlowContext] = []

        @tool
        def look(runtime: ToolRuntime[Any, Any]) -> str:
            """Look."""
            self.contexts.append(resolve_context(runtime))
            return "seen"

        self.tools = [look]

    def before_agent(self, state: Any, runtime: Runtime[Any]) -> None:
        self.contexts.append(resolve_context(runtime))

    async def abefore_agent(self, state: Any, runtime: Runtime[Any]) -> None:
        self.contexts.append(resolve_context(runtime))

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self.contexts.append(resolve_context(request.runtime))
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        self.contexts.append(resolve_context(request.runtime))
        return await handler(request)

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        self.contexts.append(resolve_context(request.runtime))
        return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        self.contexts.append(resolve_context(request.runtime))
        return await handler(request)


HOOKS = 5  # before_agent, two model calls, the tool's wrapper, the tool


def agent(*, typed: bool, rounds: int = 1, checkpointer: Any = None) -> tuple[Any, Seen]:
    seen = Seen()
    schema: Any = DeerFlowContext if typed else None
    built = create_agent(
        Model(messages=answers(rounds)), middleware=[seen], context_schema=schema, checkpointer=checkpointer
    )
    return built, seen


async def go(built: Any, how: str, context: Any, configurable: dict[str, Any] | None = None) -> None:
    options: dict[str, Any] = {"context": context, "config": {"configurable": configurable or {}}}
    given = {"messages": ["hello"]}
    if how == "async":
        await built.ainvoke(given, **options)
    elif how == "sync in a thread":
        await asyncio.to_thread(built.invoke, given, **options)
    else:
        built.invoke(given, **options)


ways = pytest.mark.parametrize("how", ["sync", "async", "sync in a thread"])


@ways
async def test_typed(how: str) -> None:
    built, seen = agent(typed=True)
    context = DeerFlowContext(CONFIG, "t", user_id="u")
    await go(built, how, context)
    assert len(seen.contexts) == HOOKS
    assert all(found is context for found in seen.contexts)


@ways
async def test_typed_from_a_dict(how: str) -> None:
    built, seen = agent(typed=True)
    await go(built, how, {"app_config": CONFIG, "thread_id": "t"})
    assert seen.contexts == [DeerFlowContext(CONFIG, "t")] * HOOKS


@ways
async def test_a_plain_mapping(how: str) -> None:
    built, seen = agent(typed=False)
    with app_config_scope(CONFIG):
        await go(built, how, {"user_id": "u", "sandbox_id": "s"}, {"thread_id": "t"})
    assert seen.contexts == [DeerFlowContext(CONFIG, "t", user_id="u")] * HOOKS


@ways
@pytest.mark.parametrize("typed", [True, False])
async def test_omitted(how: str, typed: bool) -> None:
    built, seen = agent(typed=typed, checkpointer=InMemorySaver())
    with app_config_scope(CONFIG):
        await go(built, how, None, {"thread_id": "t", "langgraph_auth_user_id": "u", "user_id": "client"})
    assert seen.contexts == [DeerFlowContext(CONFIG, "t", user_id="u")] * HOOKS


@ways
async def test_wrong(how: str) -> None:
    built, seen = agent(typed=False)
    with pytest.raises(ContextError, match="no configuration"):
        await go(built, how, None, {"thread_id": "t"})
    with app_config_scope(CONFIG), pytest.raises(ContextError, match="thread_id"):
        await go(built, how, None)
    assert seen.contexts == []


@ways
@pytest.mark.parametrize("context", ["t", 5, CONFIG, [("thread_id", "t")], object()])
async def test_a_context_of_another_type_fails_the_run(how: str, context: object) -> None:
    built, seen = agent(typed=False)
    with app_config_scope(CONFIG), pytest.raises(ContextError, match=f"not {type(context).__name__}"):
        await go(built, how, context, {"thread_id": "t"})
    assert seen.contexts == []


async def test_a_typed_agent_refuses_unknown_names_in_a_mapping() -> None:
    built, seen = agent(typed=True)
    with pytest.raises(TypeError, match="sandbox_id"):
        await go(built, "async", {"app_config": CONFIG, "thread_id": "t", "sandbox_id": "s"})
    with pytest.raises(ContextError, match="thread_id"):
        await go(built, "async", {"app_config": CONFIG, "thread_id": " "})
    assert seen.contexts == []


async def test_the_context_is_in_no_checkpoint() -> None:
    saver = InMemorySaver()
    built, seen = agent(typed=True, checkpointer=saver)
    await go(built, "async", DeerFlowContext(CONFIG, "t"), {"thread_id": "t"})
    held = [item async for item in saver.alist({"configurable": {"thread_id": "t"}})]
    assert len(held) > 3
    kept = f"{held} {dict(saver.storage)} {dict(saver.writes)} {dict(saver.blobs)}"
    assert "geheim" not in kept
    assert "DeerFlowContext" not in kept
    assert len(seen.contexts) == HOOKS


def test_a_context_is_never_falsy() -> None:
    assert not {"__len__", "__bool__"} & set(dir(DeerFlowContext))
    assert not {"__len__", "__bool__"} & set(dir(AppConfig))


class Tracer(BaseTracer):
    """Keeps what is traced of each run."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def _persist_run(self, run: Run) -> None:
        self.texts.append(str(run.model_dump(mode="json")))


@ways
async def test_no_trace_of_a_run_has_a_secret(how: str) -> None:
    built, seen = agent(typed=True)
    tracer = Tracer()
    given: Any = {"callbacks": [tracer]}
    messages = {"messages": ["hello"]}
    if how == "async":
        await built.ainvoke(messages, given, context=DeerFlowContext(CONFIG, "t"))
    else:
        await asyncio.to_thread(built.invoke, messages, given, context=DeerFlowContext(CONFIG, "t"))
    assert len(seen.contexts) == HOOKS
    assert tracer.texts
    assert "geheim" not in "".join(tracer.texts)


class Holder(TypedDict):
    messages: list[Any]


@ways
async def test_in_a_subgraph(how: str) -> None:
    graph, seen = nested(typed=True)
    context = DeerFlowContext(CONFIG, "t")
    await go(graph, how, context)
    assert len(seen.contexts) == HOOKS
    assert all(found is context for found in seen.contexts)


@ways
@pytest.mark.parametrize("context", [{"user_id": "u"}, None])
async def test_in_a_subgraph_without_a_typed_context(how: str, context: object) -> None:
    graph, seen = nested(typed=False)
    with app_config_scope(CONFIG):
        await go(graph, how, context, {"thread_id": "t", "langgraph_auth_user_id": "u"})
    assert seen.contexts == [DeerFlowContext(CONFIG, "t", user_id="u")] * HOOKS


def nested(*, typed: bool) -> tuple[Any, Seen]:
    """An agent as the node of a graph."""
    inner, seen = agent(typed=typed)
    graph = StateGraph(Holder, context_schema=DeerFlowContext) if typed else StateGraph(Holder)
    graph.add_node("inner", inner)
    graph.add_edge(START, "inner")
    return graph.compile(), seen


async def test_one_agent_with_two_configs_concurrently() -> None:
    built, seen = agent(typed=True, rounds=20)
    contexts = [DeerFlowContext((CONFIG, OTHER)[n % 2], f"t{n}") for n in range(10)]
    await asyncio.gather(*(go(built, "async", context) for context in contexts))
    for context in contexts:
        assert next(found for found in seen.contexts if found.thread_id == context.thread_id) is context
    assert {id(found) for found in seen.contexts} == {id(context) for context in contexts}


async def test_one_agent_in_two_scopes_concurrently() -> None:
    built, seen = agent(typed=False, rounds=20)

    async def scoped(config: AppConfig, thread_id: str) -> None:
        with app_config_scope(config):
            await go(built, "async", None, {"thread_id": thread_id})

    await asyncio.gather(*(scoped((CONFIG, OTHER)[n % 2], f"t{n}") for n in range(10)))
    for found in seen.contexts:
        assert found.app_config is (CONFIG, OTHER)[int(found.thread_id[1:]) % 2]
