"""What our three middlewares cost a model call: against three empty ones with the same hooks, in one run, interleaved.

    python benchmarks/middleware.py [--smoke] [--runs N]

Nothing is injected. `open_replica` is what a user has: `database.backend: memory`, and memory on files, where nothing
was saved yet; `cleared` has an empty document there. `in process` is put together by hand with memory in a dict. Every
row must cost at most 0.1 ms a model call, or the exit status is 1.

The rows take turns, round after round. A round's figure is the difference of two lower quartiles, a row's is the median
of its rounds: what else the machine does meanwhile falls on all alike. `cpu` is the same in processor time, which
knows neither waiting for a thread nor other processes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from deerflow_replica import AppConfig, DeerFlowContext, open_replica
from deerflow_replica.counters import InMemoryModelCounters
from deerflow_replica.memory import MemoryStorage, create_empty_memory
from deerflow_replica.middleware import MemoryMiddleware, ModelCounterMiddleware, ThreadOwnershipMiddleware
from deerflow_replica.threads import InMemoryThreadMap

GOAL_MS = 0.1
ROUNDS = 7
WARM_UP = 10
SETTINGS = ((1, "async"), (10, "async"), (1, "sync"), (10, "sync"))


class Scripted(BaseChatModel):
    """Calls a tool until it was called `calls - 1` times, then answers; costs next to nothing."""

    calls: int

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        done = sum(isinstance(message, ToolMessage) for message in messages)
        call = {"name": "nothing", "args": {}, "id": f"call-{done}"}
        message = AIMessage("ok") if done + 1 >= self.calls else AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate(messages)


@tool
def nothing() -> str:
    """Do nothing."""
    return ""


def _nothing(self: Any, state: Any, runtime: Any) -> None:
    return None


async def _anothing(self: Any, state: Any, runtime: Any) -> None:
    return None


def _wrap(self: Any, request: Any, handler: Callable[[Any], Any]) -> Any:
    return handler(request)


async def _awrap(self: Any, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
    return await handler(request)


class InProcessMemory(MemoryStorage):
    """Documents in a dict: nothing to wait for, as with the other backends here."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str | None, str | None], dict[str, Any]] = {}

    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        return self._documents.get((agent_name, user_id)) or create_empty_memory()

    reload = peek = load

    def save(
        self,
        memory_data: dict[str, Any],
        agent_name: str | None = None,
        *,
        user_id: str | None = None,
        expected_revision: int | None = None,
    ) -> bool:
        self._documents[agent_name, user_id] = memory_data
        return True


EMPTY_HOOKS: dict[str, Callable[..., Any]] = {
    **{f"{when}_{what}": _nothing for when in ("before", "after") for what in ("agent", "model")},
    **{f"a{when}_{what}": _anothing for when in ("before", "after") for what in ("agent", "model")},
    **{f"wrap_{what}_call": _wrap for what in ("model", "tool")},
    **{f"awrap_{what}_call": _awrap for what in ("model", "tool")},
}


def empty_like(middleware: AgentMiddleware[Any, Any, Any]) -> AgentMiddleware[Any, Any, Any]:
    """A middleware with the same hooks and the same state that does nothing."""
    kind = type(middleware)
    hooks = {name: hook for name, hook in EMPTY_HOOKS.items() if name in vars(kind)}
    empty: Any = type(f"Empty{kind.__name__}", (AgentMiddleware,), {**hooks, "state_schema": middleware.state_schema})()
    empty.tools = []
    return empty  # type: ignore[no-any-return]  # built by type()


class Row:
    """One way to run an agent, with our middlewares and with empty ones."""

    def __init__(
        self, place: str, calls: int, manner: str, middlewares: Sequence[Any], context: DeerFlowContext
    ) -> None:
        self.name = f"{place:12} {manner:5} {calls:2} call(s) a run"
        self._calls = calls
        self._manner = manner
        self._context = context
        self._agents = [_agent(calls, middlewares), _agent(calls, [empty_like(each) for each in middlewares])]
        self._rounds: list[tuple[Times, Times]] = []

    async def take(self, runs: int) -> None:
        """One round. The two agents take turns, and in who is first."""
        times: tuple[list[Times], list[Times]] = ([], [])
        runs = max(2, runs // (3 if self._calls > 1 else 1))
        for turn in range(runs + WARM_UP):
            for side in (0, 1) if turn % 2 else (1, 0):
                taken = await self._run(self._agents[side])
                if turn >= WARM_UP:
                    times[side].append(taken)
        self._rounds.append((_lower_quartiles(times[0]), _lower_quartiles(times[1])))

    async def _run(self, agent: Any) -> Times:
        given = {"messages": [HumanMessage("hi")]}, {"recursion_limit": 100}
        wall, cpu = time.perf_counter(), time.process_time()
        if self._manner == "sync":
            agent.invoke(*given, context=self._context)
        else:
            await agent.ainvoke(*given, context=self._context)
        return Times((time.perf_counter() - wall) / self._calls, (time.process_time() - cpu) / self._calls)

    @property
    def difference_ms(self) -> float:
        return statistics.median(ours.wall - empty.wall for ours, empty in self._rounds) * 1000

    def __str__(self) -> str:
        cpu_ms = statistics.median(ours.cpu - empty.cpu for ours, empty in self._rounds) * 1000
        empty_ms = statistics.median(empty.wall for _, empty in self._rounds) * 1000
        holds = "holds" if self.difference_ms <= GOAL_MS else "DOES NOT HOLD"
        return (
            f"{self.name}: {self.difference_ms:+.3f} ms a call (cpu {cpu_ms:+.3f}) on {empty_ms:.3f} with empty ones, "
            f"ratio {1 + self.difference_ms / empty_ms:.3f}; <= {GOAL_MS} ms {holds}"
        )


class Times(NamedTuple):
    """Seconds per model call."""

    wall: float
    cpu: float


def _lower_quartiles(times: list[Times]) -> Times:
    """Of what a busy machine does to a run, the fastest quarter has the least."""
    return Times(*(statistics.quantiles(each, n=4)[0] for each in zip(*times, strict=True)))


def _agent(calls: int, middlewares: Sequence[Any]) -> Any:
    return create_agent(
        Scripted(calls=calls), [nothing] if calls > 1 else [], middleware=middlewares, context_schema=DeerFlowContext
    )


@contextmanager
def without_collections() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@asynccontextmanager
async def rows() -> AsyncIterator[list[Row]]:
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        given = {"database": {"backend": "memory"}, "memory": {"storage_path": folder}}
        replica = await opened.enter_async_context(open_replica(AppConfig.from_mapping(given)))
        replica.memory.clear_all(user_id="known")
        by_hand = [
            ThreadOwnershipMiddleware(await opened.enter_async_context(InMemoryThreadMap())),
            MemoryMiddleware(InProcessMemory()),
            ModelCounterMiddleware(await opened.enter_async_context(InMemoryModelCounters())),
        ]
        places = (
            ("open_replica", replica.middleware(), DeerFlowContext(replica.config, "thread-1", user_id="new")),
            ("cleared", replica.middleware(), DeerFlowContext(replica.config, "thread-2", user_id="known")),
            ("in process", by_hand, DeerFlowContext(AppConfig(), "thread-1", user_id="new")),
        )
        yield [
            Row(place, calls, manner, middlewares, context)
            for place, middlewares, context in places
            for calls, manner in SETTINGS
        ]


async def smoke() -> None:
    """Only show that every row runs."""
    async with rows() as measured:
        for row in measured:
            await row.take(2)
            print(f"{row.name}: ran")


async def main(runs: int) -> bool:
    """Whether every row holds."""
    async with rows() as measured:
        with without_collections():
            for _ in range(ROUNDS):
                for row in measured:
                    await row.take(runs)
        for row in measured:
            print(row)
        print(f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        return all(row.difference_ms <= GOAL_MS for row in measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=120, help="runs of each agent in a round, fewer with many calls")
    parser.add_argument("--smoke", action="store_true", help="only show that it runs; no time is worth a failure")
    arguments = parser.parse_args()
    if arguments.smoke:
        asyncio.run(smoke())
    else:
        sys.exit(0 if asyncio.run(main(arguments.runs)) else 1)
