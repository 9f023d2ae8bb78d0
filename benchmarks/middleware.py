"""What our three middlewares cost a model call: against three empty ones with the same hooks, in one run, interleaved.

    python benchmarks/middleware.py [--smoke] [--runs N]

Nothing is injected and every backend is in the process, so this is the price of the middlewares themselves. Memory on
files is shown beside it: an async agent asks it on a thread, and that hop is most of the difference. Exits with 1 when
in-process backends cost more than 0.1 ms a model call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.counters import InMemoryModelCounters
from deerflow_replica.memory import FileMemoryStorage, MemoryStorage, create_empty_memory
from deerflow_replica.middleware import MemoryMiddleware, ModelCounterMiddleware, ThreadOwnershipMiddleware
from deerflow_replica.threads import InMemoryThreadMap

GOAL_MS = 0.1
WARM_UP = 20
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
    empty: Any = type(f"Empty{kind.__name__}", (AgentMiddleware,), {**hooks, "state_schema": kind.state_schema})()
    empty.tools = []
    return empty  # type: ignore[no-any-return]  # built by type()


@dataclass(frozen=True)
class Outcome:
    calls: int
    manner: str
    ours_ms: float
    empty_ms: float

    @property
    def difference_ms(self) -> float:
        return self.ours_ms - self.empty_ms

    def __str__(self) -> str:
        holds = "holds" if self.difference_ms <= GOAL_MS else "DOES NOT HOLD"
        return (
            f"{self.manner:5} {self.calls:2} call(s) a run: ours {self.ours_ms:.3f} ms, empty {self.empty_ms:.3f} ms, "
            f"difference {self.difference_ms:+.3f} ms a call, ratio {self.ours_ms / self.empty_ms:.3f}; "
            f"<= {GOAL_MS} ms {holds}"
        )


async def measure(calls: int, manner: str, runs: int, middlewares: list[Any]) -> Outcome:
    """Lower quartiles per model call: of what a busy machine does to a run, the fastest quarter has the least."""
    agents = [_agent(calls, middlewares), _agent(calls, [empty_like(each) for each in middlewares])]
    times: list[list[float]] = [[], []]
    gc.collect()
    for turn in range(runs + WARM_UP):
        for side in (0, 1) if turn % 2 else (1, 0):
            seconds = await _run(agents[side], manner)
            if turn >= WARM_UP:
                times[side].append(seconds * 1000 / calls)
    ours, empty = (statistics.quantiles(each, n=4)[0] for each in times)
    return Outcome(calls, manner, ours, empty)


def _agent(calls: int, middlewares: list[Any]) -> Any:
    return create_agent(
        Scripted(calls=calls), [nothing] if calls > 1 else [], middleware=middlewares, context_schema=DeerFlowContext
    )


async def _run(agent: Any, manner: str) -> float:
    given = {"messages": [HumanMessage("hi")]}, {"recursion_limit": 100}
    context = DeerFlowContext(_CONFIG, "thread-1", user_id="user-1")
    started = time.perf_counter()
    if manner == "sync":
        agent.invoke(*given, context=context)
    else:
        await agent.ainvoke(*given, context=context)
    return time.perf_counter() - started


_CONFIG = AppConfig()


@contextmanager
def without_collections() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def main(runs: int) -> bool:
    """Whether the goal holds with every backend in the process."""
    with tempfile.TemporaryDirectory() as folder, without_collections():
        async with InMemoryThreadMap() as threads, InMemoryModelCounters() as counters:
            kept = True
            for place, memory in (("in process", InProcessMemory()), ("memory on files", FileMemoryStorage(folder))):
                ours = [ThreadOwnershipMiddleware(threads), MemoryMiddleware(memory), ModelCounterMiddleware(counters)]
                for calls, manner in SETTINGS:
                    outcome = await measure(calls, manner, max(3, runs // (3 if calls > 1 else 1)), ours)
                    print(f"{place:15} {outcome}")
                    kept = kept and (place != "in process" or outcome.difference_ms <= GOAL_MS)
            return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="runs of each agent, fewer of those with many calls")
    parser.add_argument("--smoke", action="store_true", help="only show that it runs; measure nothing worth a failure")
    arguments = parser.parse_args()
    kept = asyncio.run(main(5 if arguments.smoke else arguments.runs))
    sys.exit(0 if kept or arguments.smoke else 1)
