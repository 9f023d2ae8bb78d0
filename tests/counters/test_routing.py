"""Agents whose first model is ill, or fails: who answers, and what the client sees of it."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain.agents.middleware.types import ModelRequest
from langchain.agents.structured_output import StructuredOutputError, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from deerflow_replica.counters import InMemoryModelCounters, ModelHealth
from deerflow_replica.middleware import ModelCounterMiddleware, ModelRoutingMiddleware
from deerflow_replica.middleware.routing import _Tokens
from scripted_models import ANSWER, HANG, INPUT, USAGE, Scripted, Streaming, scripted, streaming
from waiting import eventually

pytestmark = pytest.mark.anyio

HOWS = pytest.mark.parametrize("how", ["sync", "async", "streamed"])


class BadRequestError(Exception):
    status_code = 400


class Fleet:
    """An agent of the model `own` that is routed over `models`."""

    def __init__(
        self, own: str | None, *outside: Any, agent: Any = None, health: Any = None, **models: Scripted
    ) -> None:
        self.counters = InMemoryModelCounters()
        self.health = ModelHealth(self.counters, jitter=0, **(health or {}))
        self.models = models
        routing = ModelRoutingMiddleware(self.health, models)
        inner = ModelCounterMiddleware(self.counters, models=models)
        self.agent: Any = create_agent(
            models[own] if own else scripted(), [], middleware=[*outside, routing, inner], **(agent or {})
        )

    async def answer(self, how: str = "async") -> str:
        if how == "sync":
            result = await asyncio.to_thread(self.agent.invoke, INPUT)
        elif how == "async":
            result = await self.agent.ainvoke(INPUT)
        else:
            return "".join([chunk.text async for chunk, _ in self.agent.astream(INPUT, stream_mode="messages")])
        return str(result["messages"][-1].content)

    def calls(self) -> dict[str, tuple[int, int]]:
        return {name: (one.call_count, one.failure_count) for name, one in self.counters.local_totals().items()}

    async def make_half_open(self, name: str) -> None:
        self.counters.record(name, "failure", error_type="rate_limit", retry_after_seconds=0.01)
        await eventually(lambda: self.health.state(name).state == "half_open")

    def is_free(self, name: str) -> bool:
        """Whether a probe can be had, and leaves it so."""
        permit = self.health.acquire_sync(name)
        if permit is None or not permit.probe:
            return False
        self.health.release_sync(permit, "abandoned")
        return True


@HOWS
async def test_a_failure_is_answered_by_the_next_model(how: str) -> None:
    fleet = Fleet("a", a=scripted(ConnectionError()), b=scripted(TimeoutError()), c=scripted(ANSWER))
    assert await fleet.answer(how) == "hello there"
    assert fleet.calls() == {"a": (1, 1), "b": (1, 1), "c": (1, 0)}


@HOWS
async def test_the_agent_s_own_model_is_first_and_then_in_order(how: str) -> None:
    fleet = Fleet("b", a=scripted(ANSWER), b=scripted(ConnectionError()), c=scripted())
    assert await fleet.answer(how) == "hello there"
    assert fleet.calls() == {"a": (1, 0), "b": (1, 1)}


async def test_an_agent_of_another_model_gets_the_first() -> None:
    fleet = Fleet(None, a=scripted(ANSWER), b=scripted())
    assert await fleet.answer() == "hello there"
    assert list(fleet.calls()) == ["a"]


@HOWS
async def test_an_ill_model_is_not_even_called(how: str) -> None:
    fleet = Fleet("a", a=scripted(), b=scripted(ANSWER))
    fleet.counters.record("a", "failure", error_type="auth")
    assert await fleet.answer(how) == "hello there"
    assert fleet.calls() == {"a": (1, 1), "b": (1, 0)}


@HOWS
async def test_the_last_model_is_called_however_ill(how: str) -> None:
    fleet = Fleet("a", a=scripted(ANSWER))
    fleet.counters.record("a", "failure", error_type="auth")
    assert await fleet.answer(how) == "hello there"


@pytest.mark.parametrize("how", ["sync", "async", "streamed"])
async def test_with_none_left_the_last_error_is_raised(how: str) -> None:
    last = ConnectionError("b")
    fleet = Fleet("a", a=scripted(ConnectionError("a")), b=scripted(last))
    with pytest.raises(ConnectionError) as raised:
        await fleet.answer(how)
    assert raised.value is last
    assert fleet.calls() == {"a": (1, 1), "b": (1, 1)}


@HOWS
async def test_a_refused_request_goes_to_nobody_else(how: str) -> None:
    fleet = Fleet("a", a=scripted(BadRequestError()), b=scripted(ANSWER))
    with pytest.raises(BadRequestError):
        await fleet.answer(how)
    assert fleet.calls() == {"a": (1, 1)}


async def test_after_a_token_nobody_else_answers() -> None:
    fleet = Fleet("a", a=streaming(ConnectionError("half way")), b=streaming(ANSWER))
    chunks: list[str] = []

    async def read() -> None:
        async for chunk, _ in fleet.agent.astream(INPUT, stream_mode="messages"):
            chunks.append(chunk.text)

    with pytest.raises(ConnectionError, match="half way"):
        await read()
    assert chunks == ["token "]
    assert fleet.calls() == {"a": (1, 1)}


class SyncStreaming(Streaming):
    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content=self.first))
        yield ChatGenerationChunk(message=AIMessageChunk(content=self.next().content))


def test_after_a_token_nobody_else_answers_without_a_loop_either() -> None:
    first = SyncStreaming()
    first._script = iter([ConnectionError("half way")])
    fleet = Fleet("a", a=first, b=scripted(ANSWER))
    chunks: list[str] = []
    with pytest.raises(ConnectionError, match="half way"):
        chunks.extend(chunk.text for chunk, _ in fleet.agent.stream(INPUT, stream_mode="messages"))
    assert fleet.calls() == {"a": (1, 1)}


@pytest.mark.parametrize(
    ("chunk", "is_something"),
    [
        (AIMessageChunk(content=""), False),
        (AIMessageChunk(content="", usage_metadata=USAGE, response_metadata={"model_name": "m"}), False),
        (AIMessageChunk(content="x"), True),
        (AIMessageChunk(content=[{"type": "text", "text": "x"}]), True),
        (AIMessageChunk(content="", tool_call_chunks=[{"name": "look", "args": "", "id": "1", "index": 0}]), True),
        (AIMessageChunk(content="", additional_kwargs={"reasoning_content": "hm"}), True),
        (None, False),
    ],
)
def test_what_a_client_could_have_seen(chunk: Any, is_something: bool) -> None:
    tokens = _Tokens()
    tokens.on_llm_new_token("", chunk=chunk and ChatGenerationChunk(message=chunk))
    assert tokens.were_streamed is is_something
    tokens.on_llm_new_token("a word", chunk=None)
    tokens.on_llm_new_token("", chunk=None)
    assert tokens.were_streamed is True


def test_the_start_of_a_message_is_nothing_that_a_client_could_have_seen() -> None:
    tokens = _Tokens()
    tokens.on_stream_event({"event": "message-start"})
    assert tokens.were_streamed is False
    tokens.on_stream_event({"event": "content-block-delta"})
    assert tokens.were_streamed is True


async def test_before_a_token_the_next_streams_and_nothing_comes_twice() -> None:
    fleet = Fleet("a", a=scripted(ConnectionError()), b=streaming(ANSWER))
    assert await fleet.answer("streamed") == "token hello there"


class BeginsEmpty(Streaming):
    """As some do: a first piece with nothing in it."""

    first: str = ""


async def test_an_empty_piece_is_no_token() -> None:
    begins = BeginsEmpty()
    begins._script = iter([ConnectionError()])
    fleet = Fleet("a", a=begins, b=streaming(ANSWER))
    assert await fleet.answer("streamed") == "token hello there"


@pytest.mark.parametrize(
    ("ends", "state"),
    [(ANSWER, "closed"), (ConnectionError(), "open"), (BadRequestError(), "half_open")],
)
@HOWS
async def test_a_probe_is_released_as_it_ended(how: str, ends: Any, state: str) -> None:
    fleet = Fleet("a", a=scripted(ends), b=scripted(ANSWER))
    await fleet.make_half_open("a")
    if isinstance(ends, BadRequestError):
        with pytest.raises(BadRequestError):
            await fleet.answer(how)
        assert fleet.is_free("a")
    else:
        assert await fleet.answer(how) == "hello there"
    assert fleet.health.state("a").state == state


@pytest.mark.parametrize("how", ["async", "streamed"])
async def test_a_cancelled_probe_is_free_for_others(how: str) -> None:
    model = streaming(HANG) if how == "streamed" else scripted(HANG)
    fleet = Fleet("a", a=model, b=scripted(ANSWER))
    await fleet.make_half_open("a")
    running = asyncio.create_task(fleet.answer(how))
    await model._waiting.wait()
    assert not fleet.is_free("a")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert fleet.is_free("a")
    assert "b" not in fleet.calls()


async def test_a_closed_coroutine_gives_its_probe_back() -> None:
    fleet = Fleet("a", health={"refresh_seconds": 0.001}, a=scripted())
    await fleet.make_half_open("a")
    request: Any = ModelRequest(model=fleet.models["a"], messages=[])
    called = asyncio.Event()

    async def handler(_: Any) -> Any:
        called.set()
        await asyncio.Event().wait()

    call = ModelRoutingMiddleware(fleet.health, fleet.models).awrap_model_call(request, handler)
    await _closed_once(call, called)
    await eventually(lambda: fleet.is_free("a"))


@types.coroutine
def _closed_once(call: Any, called: asyncio.Event) -> Generator[Any, None, None]:
    while True:
        waits_for = call.send(None)
        if called.is_set():
            call.close()
            return
        yield waits_for


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_an_interrupt_goes_through_and_gives_its_probe_back(how: str) -> None:
    def ask() -> AIMessage:
        return AIMessage(interrupt("may I?"))

    fleet = Fleet("a", agent={"checkpointer": InMemorySaver()}, a=scripted(ask, ask), b=scripted())
    await fleet.make_half_open("a")
    thread: Any = {"configurable": {"thread_id": "t"}}

    async def invoke(value: Any) -> Any:
        agent = fleet.agent
        return await (
            agent.ainvoke(value, thread) if how == "async" else asyncio.to_thread(agent.invoke, value, thread)
        )

    assert "__interrupt__" in await invoke(INPUT)
    assert fleet.is_free("a")
    assert (await invoke(Command(resume="yes")))["messages"][-1].content == "yes"
    assert fleet.health.state("a").state == "closed"


class Weather(BaseModel):
    degrees: int


async def test_an_answer_that_does_not_parse_is_an_answer() -> None:
    answer = AIMessage("", tool_calls=[{"name": "Weather", "args": {"degrees": "mild"}, "id": "1"}])
    strategy = {"response_format": ToolStrategy(Weather, handle_errors=False)}
    fleet = Fleet("a", agent=strategy, a=scripted(answer), b=scripted())
    await fleet.make_half_open("a")
    with pytest.raises(StructuredOutputError):
        await fleet.answer()
    assert fleet.health.state("a").state == "closed"


async def test_a_retry_outside_begins_anew() -> None:
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False)
    fleet = Fleet("a", retry, a=scripted(ConnectionError(), ANSWER), b=scripted(ConnectionError()))
    assert await fleet.answer() == "hello there"
    assert fleet.calls() == {"a": (2, 1), "b": (1, 1)}


async def test_models_keep_their_tools() -> None:
    bound: list[str] = []

    class Binding(Scripted):
        def bind_tools(self, tools: Any, **_: Any) -> Any:
            bound.extend(one.name for one in tools)
            return self

    @tool
    def look() -> str:
        """Look around."""
        return "nothing"

    second = Binding()
    second._script = iter([ANSWER])
    models = {"a": scripted(ConnectionError()), "b": second}
    counters = InMemoryModelCounters()
    middleware: Any = [ModelRoutingMiddleware(ModelHealth(counters), models), ModelCounterMiddleware(counters)]
    agent: Any = create_agent(models["a"], [look], middleware=middleware)
    assert (await agent.ainvoke(INPUT))["messages"][-1].content == "hello there"
    assert bound == ["look"]


async def test_many_runs_at_once_share_one_middleware() -> None:
    fleet = Fleet("a", a=scripted(*[ConnectionError()] * 60), b=scripted(*[ANSWER] * 60))
    assert set(await asyncio.gather(*[fleet.answer(how) for how in ("sync", "async") * 25])) == {"hello there"}
    assert fleet.calls()["b"] == (50, 0)


def test_without_models_there_is_no_route() -> None:
    with pytest.raises(ValueError, match="models"):
        ModelRoutingMiddleware(ModelHealth(InMemoryModelCounters()), {})
