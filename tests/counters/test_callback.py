"""Model calls outside of agents, inside of them, and both."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import FakeListLLM
from langchain_core.outputs import LLMResult

from deerflow_replica.counters import InMemoryModelCounters, ModelHealth
from deerflow_replica.middleware import ModelCounterCallback, ModelCounterMiddleware, ModelRoutingMiddleware
from deerflow_replica.testing._counters_common import numbers
from scripted_models import ANSWER, COUNTED, HANG, INPUT, Scripted, scripted, streaming

pytestmark = pytest.mark.anyio

HOWS = pytest.mark.parametrize("how", ["sync", "async", "streamed"])
ONE_ANSWER = {"call_count": 1, "success_count": 1, **COUNTED}


@pytest.fixture
def counters() -> InMemoryModelCounters:
    return InMemoryModelCounters()


def counted(counters: InMemoryModelCounters, name: str = "scripted") -> dict[str, int]:
    return numbers(counters.local_totals()[name])


async def call(model: Any, how: str, callback: Any) -> None:
    config: Any = {"callbacks": [callback]}
    if how == "sync":
        await asyncio.to_thread(model.invoke, "hi", config)
    elif how == "async":
        await model.ainvoke("hi", config)
    else:
        _ = [chunk async for chunk in model.astream("hi", config)]


@HOWS
async def test_an_answer_counts_with_its_tokens_and_its_duration(counters: InMemoryModelCounters, how: str) -> None:
    model = streaming(ANSWER) if how == "streamed" else scripted(ANSWER)
    await call(model, how, ModelCounterCallback(counters))
    assert counted(counters) == ONE_ANSWER
    assert counters.local_totals()["scripted"].latency.count == 1


@HOWS
async def test_a_failure_counts_by_its_kind(counters: InMemoryModelCounters, how: str) -> None:
    with pytest.raises(ConnectionError):
        await call(scripted(ConnectionError()), how, ModelCounterCallback(counters))
    assert counted(counters) == {"call_count": 1, "failure_count": 1}
    assert counters.local_totals()["scripted"].failures_by_kind == {"transient": 1}


@pytest.mark.parametrize("how", ["async", "streamed"])
async def test_a_cancelled_call_is_never_a_failure(counters: InMemoryModelCounters, how: str) -> None:
    model = streaming(HANG) if how == "streamed" else scripted(HANG)
    running = asyncio.create_task(call(model, how, ModelCounterCallback(counters)))
    await model._waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(not total.call_count for total in counters.local_totals().values())


async def test_names(counters: InMemoryModelCounters) -> None:
    class Modern(Scripted):
        name: str | None = None
        model_name: str = "modern-1"

        @property
        def _identifying_params(self) -> dict[str, Any]:
            return {"model_name": self.model_name}

    class Nameless(Scripted):
        name: str | None = None

    def made(kind: type[Scripted]) -> Scripted:
        model = kind()
        model._script = iter([ANSWER] * 3)
        return model

    for kind in (Modern, Nameless, Scripted):
        await call(made(kind), "async", ModelCounterCallback(counters))
    await call(made(Modern), "async", ModelCounterCallback(counters, model_name="given"))
    known = made(Modern)
    await call(known, "async", ModelCounterCallback(counters, models={"key": known}))
    await call(FakeListLLM(responses=["x"]), "async", ModelCounterCallback(counters))
    assert list(counters.local_totals()) == ["FakeListLLM", "Nameless", "given", "key", "modern-1", "scripted"]


@HOWS
@pytest.mark.parametrize("is_routed", [False, True])
async def test_with_the_middleware_a_call_counts_once(
    counters: InMemoryModelCounters, how: str, is_routed: bool
) -> None:
    callback = ModelCounterCallback(counters)
    model = streaming(ANSWER, ConnectionError()) if how == "streamed" else scripted(ANSWER, ConnectionError())
    routing: list[Any] = [ModelRoutingMiddleware(ModelHealth(counters), {"scripted": model})] if is_routed else []
    agent: Any = create_agent(model, [], middleware=[*routing, ModelCounterMiddleware(counters)])
    config: Any = {"callbacks": [callback]}

    async def run() -> None:
        if how == "sync":
            await asyncio.to_thread(agent.invoke, INPUT, config)
        elif how == "async":
            await agent.ainvoke(INPUT, config)
        else:
            _ = [item async for item in agent.astream(INPUT, config, stream_mode="messages")]

    await run()
    assert counted(counters) == ONE_ANSWER
    with pytest.raises(ConnectionError):
        await run()
    assert counted(counters) == {**ONE_ANSWER, "call_count": 2, "failure_count": 1}
    assert not counters._runs._named
    assert not callback._open


async def test_what_other_middlewares_call_is_counted_too(counters: InMemoryModelCounters) -> None:
    helper = scripted(ANSWER)
    helper.name = "helper"

    class Titles(AgentMiddleware[Any, Any]):
        async def abefore_model(self, state: Any, runtime: Any) -> None:
            await helper.ainvoke("a title?")

    agent: Any = create_agent(scripted(ANSWER), [], middleware=[Titles(), ModelCounterMiddleware(counters)])
    await agent.ainvoke(INPUT, {"callbacks": [ModelCounterCallback(counters)]})
    assert counted(counters) == counted(counters, "helper") == ONE_ANSWER


async def test_callbacks_of_other_counters_count_for_themselves(counters: InMemoryModelCounters) -> None:
    others = InMemoryModelCounters()
    agent: Any = create_agent(scripted(ANSWER), [], middleware=[ModelCounterMiddleware(counters)])
    await agent.ainvoke(INPUT, {"callbacks": [ModelCounterCallback(others)]})
    assert counted(counters) == counted(others) == ONE_ANSWER


def test_calls_whose_end_nobody_tells_are_let_go(counters: InMemoryModelCounters) -> None:
    callback = ModelCounterCallback(counters)
    for _ in range(10_050):
        callback.on_chat_model_start(None, [], run_id=uuid4())
    assert len(callback._open) == 10_000
    last = uuid4()
    callback.on_llm_start({}, [], run_id=last)
    callback.on_llm_end(LLMResult(generations=[]), run_id=last)
    callback.on_llm_end(LLMResult(generations=[]), run_id=last)
    assert counted(counters, "unknown")["call_count"] == 1


async def test_counting_never_fails_a_call(counters: InMemoryModelCounters, caplog: pytest.LogCaptureFixture) -> None:
    callback = ModelCounterCallback(counters)
    await counters.close()
    await call(scripted(ANSWER), "async", callback)
    assert "could not be counted" in caplog.text
