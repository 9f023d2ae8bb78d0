"""Agents with scripted models: what the middleware counts of them, and what it leaves alone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain.agents.structured_output import StructuredOutputError, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from deerflow_replica.counters import InMemoryModelCounters, ModelCounters, SqliteModelCounters
from deerflow_replica.middleware import ModelCounterMiddleware
from deerflow_replica.middleware._outcome import model_name_of
from deerflow_replica.testing._counters_common import numbers
from scripted_models import ANSWER, COUNTED, HANG, INPUT, USAGE, Scripted, scripted, streaming

pytestmark = pytest.mark.anyio


class Weather(BaseModel):
    degrees: int


@pytest.fixture
def counters() -> InMemoryModelCounters:
    return InMemoryModelCounters()


def agent(counters: ModelCounters, model: BaseChatModel, *outside: Any, **more: Any) -> Any:
    return create_agent(model, [], middleware=[*outside, ModelCounterMiddleware(counters)], **more)


def counted(counters: ModelCounters, name: str = "scripted") -> dict[str, int]:
    return numbers(counters.local_totals()[name])


async def run(graph: Any, how: str) -> Any:
    if how == "sync":
        return await asyncio.to_thread(graph.invoke, INPUT)
    if how == "async":
        return await graph.ainvoke(INPUT)
    return [item async for item in graph.astream(INPUT, stream_mode="messages")]


HOWS = pytest.mark.parametrize("how", ["sync", "async", "streamed"])


@HOWS
async def test_an_answer_counts_with_its_tokens_and_its_duration(counters: ModelCounters, how: str) -> None:
    model = streaming(ANSWER) if how == "streamed" else scripted(ANSWER)
    await run(agent(counters, model), how)
    assert counted(counters) == {"call_count": 1, "success_count": 1, **COUNTED}
    latency = counters.local_totals()["scripted"].latency
    assert latency.count == 1
    assert 0 < latency.sum_seconds < 30


@HOWS
async def test_a_failure_is_counted_and_comes_out_as_it_was(counters: ModelCounters, how: str) -> None:
    error = ConnectionError("gone")
    model = streaming(error) if how == "streamed" else scripted(error)
    with pytest.raises(ConnectionError) as raised:
        await run(agent(counters, model), how)
    assert raised.value is error
    assert counted(counters) == {"call_count": 1, "failure_count": 1}
    assert counters.local_totals()["scripted"].failures_by_kind == {"transient": 1}


@pytest.mark.parametrize("how", ["async", "streamed"])
async def test_a_cancelled_call_is_no_call(counters: ModelCounters, how: str) -> None:
    model = streaming(HANG) if how == "streamed" else scripted(HANG)
    running = asyncio.create_task(run(agent(counters, model), how))
    await model._waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert counted(counters) == {"cancelled_count": 1}


async def test_a_timeout_around_the_agent_is_a_cancellation(counters: ModelCounters) -> None:
    model, limit = scripted(HANG), asyncio.timeout(None)

    async def end_it() -> None:
        await model._waiting.wait()
        limit.reschedule(0)

    async def limited() -> None:
        async with limit:
            await agent(counters, model).ainvoke(INPUT)

    ending = asyncio.create_task(end_it())
    with pytest.raises(TimeoutError):
        await limited()
    await ending
    assert counted(counters) == {"cancelled_count": 1}


@HOWS
async def test_a_timeout_of_the_model_is_a_failure(counters: ModelCounters, how: str) -> None:
    with pytest.raises(TimeoutError):
        await run(agent(counters, scripted(TimeoutError())), how)
    assert counters.local_totals()["scripted"].failures_by_kind == {"transient": 1}


async def test_a_keyboard_interrupt_is_no_failure(counters: ModelCounters) -> None:
    middleware = ModelCounterMiddleware(counters)

    def handler(_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        middleware.wrap_model_call(_request(scripted()), handler)
    assert counted(counters) == {"cancelled_count": 1}


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_interrupted_and_resumed_is_control_flow_and_then_a_success(counters: ModelCounters, how: str) -> None:
    def ask() -> AIMessage:
        return AIMessage(interrupt("may I?"))

    graph = agent(counters, scripted(ask, ask), checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t"}}

    async def invoke(value: Any) -> Any:
        return (
            await graph.ainvoke(value, thread)
            if how == "async"
            else await asyncio.to_thread(graph.invoke, value, thread)
        )

    assert "__interrupt__" in await invoke(INPUT)
    assert counted(counters) == {"control_flow_count": 1}
    assert (await invoke(Command(resume="yes")))["messages"][-1].content == "yes"
    assert counted(counters) == {
        "control_flow_count": 1,
        "call_count": 1,
        "success_count": 1,
        "calls_without_usage": 1,
    }


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_an_answer_that_does_not_parse_is_an_answer_with_tokens(counters: ModelCounters, how: str) -> None:
    call: Any = {"name": "Weather", "args": {"degrees": "mild"}, "id": "1"}
    answer = AIMessage("", tool_calls=[call], usage_metadata=USAGE)
    strategy = ToolStrategy(Weather, handle_errors=False)
    with pytest.raises(StructuredOutputError):
        await run(agent(counters, scripted(answer), response_format=strategy), how)
    assert counted(counters) == {"call_count": 1, "success_count": 1, "parse_error_count": 1, **COUNTED}


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_every_attempt_of_a_retry_outside_is_a_call(counters: ModelCounters, how: str) -> None:
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False)
    model = scripted(ConnectionError(), TimeoutError(), ANSWER)
    await run(agent(counters, model, retry), how)
    assert counted(counters) == {"call_count": 3, "success_count": 1, "failure_count": 2, **COUNTED}


async def test_many_runs_at_once_through_one_middleware(counters: ModelCounters) -> None:
    graph = agent(counters, scripted(*[ANSWER] * 50))
    await asyncio.gather(*[run(graph, how) for how in ("sync", "async") * 25])
    assert counted(counters) == {"call_count": 50, "success_count": 50, **{k: n * 50 for k, n in COUNTED.items()}}


async def test_closed_counters_do_not_fail_a_call(counters: ModelCounters, caplog: pytest.LogCaptureFixture) -> None:
    graph = agent(counters, scripted(ANSWER, ConnectionError(), ANSWER))
    await counters.close()
    with caplog.at_level(logging.WARNING):
        assert (await graph.ainvoke(INPUT))["messages"][-1].content == ANSWER.content
        with pytest.raises(ConnectionError):
            await graph.ainvoke(INPUT)
        assert (await run(graph, "sync"))["messages"][-1].content == ANSWER.content
    assert len([record for record in caplog.records if "could not be counted" in record.message]) == 3


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_sync_durability_is_stored_when_the_call_returns(tmp_path: Path, how: str) -> None:
    path = tmp_path / "counters.db"
    async with SqliteModelCounters(path, durability="sync", flush_interval_seconds=3600) as counters:
        graph = agent(counters, scripted(ANSWER, ConnectionError()))
        await run(graph, how)
        with pytest.raises(ConnectionError):
            await run(graph, how)
        async with SqliteModelCounters(path) as sibling:
            totals = await sibling.totals()
    assert numbers(totals["scripted"]) == {"call_count": 2, "success_count": 1, "failure_count": 1, **COUNTED}


async def test_sync_durability_stores_a_cancelled_call(tmp_path: Path) -> None:
    path = tmp_path / "counters.db"
    model = scripted(HANG)
    async with SqliteModelCounters(path, durability="sync", flush_interval_seconds=3600) as counters:
        running = asyncio.create_task(run(agent(counters, model), "async"))
        await model._waiting.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        async with SqliteModelCounters(path) as sibling:
            assert numbers((await sibling.totals())["scripted"]) == {"cancelled_count": 1}


async def test_a_closing_coroutine_does_not_wait_for_the_store(tmp_path: Path) -> None:
    async with SqliteModelCounters(tmp_path / "counters.db", durability="sync") as counters:
        model = scripted(HANG)

        async def handler(_: Any) -> Any:
            await asyncio.Event().wait()

        call = ModelCounterMiddleware(counters).awrap_model_call(_request(model), handler)
        call.send(None)
        call.close()
        assert counted(counters) == {"cancelled_count": 1}


def test_a_given_name_belongs_to_the_very_object(counters: ModelCounters) -> None:
    fast, slow = scripted(ANSWER), scripted(ANSWER)
    middleware = ModelCounterMiddleware(counters, models={"fast": fast, "slow": slow})
    for model in (fast, slow):
        create_agent(model, [], middleware=[middleware]).invoke(INPUT)
    assert list(counters.local_totals()) == ["fast", "slow"]


class Named:
    def __init__(self, **names: Any) -> None:
        self.__dict__.update(names)


class Around:
    """Answers for another object, as a model that is configured at run time does."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Nameless(Scripted):
    name: str | None = None


class NamedByProperty(Nameless):
    @property
    def model_name(self) -> str:
        return "computed"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Nameless(), "Nameless"),
        (NamedByProperty(), "computed"),
        (Around(Named(model="inside")), "inside"),
        (Named(name="a", model_name="b", model="c"), "a"),
        (Named(name=None, model_name=" b ", model="c"), "b"),
        (Named(name="", model_name=7, model="c"), "c"),
        (Named(model="x" * 300), "x" * 256),
        (Named(name="  "), "Named"),
    ],
)
def test_a_model_is_called_what_it_calls_itself(model: object, name: str) -> None:
    assert model_name_of(model, {}) == name


def _request(model: BaseChatModel) -> Any:
    from langchain.agents.middleware.types import ModelRequest

    return ModelRequest(model=model, messages=[])
