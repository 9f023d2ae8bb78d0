"""What counting one model call costs, in one run, interleaved.

    python benchmarks/record.py [--smoke]

`record()` against one `prometheus_client` counter, and the questions that routing asks of `ModelHealth`; whole agent
calls with the counter, with health and routing around it, and with none of them; how fast 100 replicas at once flush
into one SQLite file and one Valkey; what a busy fleet sends to one PostgreSQL, beside a statement for each call.

Exits with 1 when a limit is missed: `record` takes at most 5 us and 5 times as long as `Counter.labels(...).inc()`,
`state` and `choose_sync` 10 us, an agent call with routing and the counter 1.5 ms more than one without.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from timeit import timeit
from typing import Any

import anyio
from _record_fleet import USAGE, database, flushes
from _verdicts import Verdict, told
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import FakeListChatModel
from prometheus_client import CollectorRegistry, Counter

from deerflow_replica.counters import InMemoryModelCounters, ModelCounters, ModelHealth, SqliteModelCounters
from deerflow_replica.middleware import ModelCounterMiddleware, ModelRoutingMiddleware

PEER = "prometheus_client Counter.labels().inc(), us"
OURS = "record(), us"
STATE, CHOOSE = "ModelHealth.state() of a closed model, us", "ModelHealth.choose_sync() of a closed model, us"
LIMITS = {OURS: 5.0, STATE: 10.0, CHOOSE: 10.0}
GOAL_RATIO = 5.0
GOAL_AGENT_MILLISECONDS = 1.5
THREADS = 4
REPLICAS = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="only show that it runs; measure nothing worth a failure")
    smoke = parser.parse_args().smoke
    calls, rounds = (5_000, 3) if smoke else (100_000, 15)
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs; best of {rounds} x {calls}"
    )
    kept = [
        anyio.run(said, measured(calls, rounds), smoke),
        anyio.run(said, agents(*((10, 2) if smoke else (100, 15))), smoke),
        anyio.run(said, flushes(*((10, 2) if smoke else (REPLICAS, 10))), smoke),
        anyio.run(said, database(0.3 if smoke else 5.0), smoke),
    ]
    return 0 if smoke or all(kept) else 1


async def said(verdicts: AsyncIterator[Verdict], smoke: bool) -> bool:
    return all([told([verdict], is_judged=not smoke) async for verdict in verdicts])


async def measured(calls: int, rounds: int) -> AsyncIterator[Verdict]:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            InMemoryModelCounters() as alone,
            InMemoryModelCounters() as watched,
            SqliteModelCounters(Path(folder) / "counters.db") as flushed,
        ):
            health = ModelHealth(watched)
            rivals: dict[str, Callable[[int], float]] = {
                PEER: partial(timed, prometheus_inc()),
                OURS: partial(timed, recorder(alone)),
                "record(), heard by ModelHealth, us": partial(timed, recorder(watched)),
                "record(), while a flusher writes SQLite, us": partial(timed, recorder(flushed)),
                f"record(), from {THREADS} threads at once, us": partial(from_threads, recorder(alone)),
                STATE: partial(timed, lambda: health.state("gpt-5")),
                CHOOSE: partial(timed, lambda: health.choose_sync(["gpt-5", "claude"])),
            }
            best = interleaved(rivals, calls, rounds)
            assert health.state("gpt-5").state == "closed"
    for name, microseconds in best.items():
        yield Verdict(name, microseconds, LIMITS.get(name), at_most=True)
    yield Verdict("record(), in times the counter of prometheus_client", best[OURS] / best[PEER], GOAL_RATIO, True)


async def agents(calls: int, rounds: int) -> AsyncIterator[Verdict]:
    """Milliseconds of a whole agent call whose model answers at once, the best round of each."""
    model = FakeListChatModel(responses=["yes"])
    async with InMemoryModelCounters() as counters:
        counter, models = ModelCounterMiddleware(counters), {"m": model}
        routing = ModelRoutingMiddleware(ModelHealth(counters), models)
        rivals: dict[str, Any] = {
            "without middleware": create_agent(model, []),
            "with an empty middleware": create_agent(model, [], middleware=[Empty()]),
            "with the counter": create_agent(model, [], middleware=[counter]),
            "with routing and the counter": create_agent(model, [], middleware=[routing, counter]),
        }
        best = dict.fromkeys(rivals, float("inf"))
        for _ in range(rounds):
            for name, agent in rivals.items():
                started = perf_counter()
                for _ in range(calls):
                    await agent.ainvoke({"messages": [("user", "hi")]})
                best[name] = min(best[name], (perf_counter() - started) / calls * 1e3)
    for name, milliseconds in best.items():
        yield Verdict(f"an agent call {name}, ms", milliseconds)
    bare, *_, routed = best.values()
    yield Verdict("what routing and the counter add to it, ms", routed - bare, GOAL_AGENT_MILLISECONDS, at_most=True)


class Empty(AgentMiddleware[Any, Any]):
    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


def interleaved(rivals: dict[str, Callable[[int], float]], calls: int, rounds: int) -> dict[str, float]:
    """Microseconds a call, the best round of each: what disturbs a round is the machine, not the code."""
    rows = [{name: seconds_for(calls) for name, seconds_for in rivals.items()} for _ in range(rounds)]
    return {name: min(row[name] for row in rows) / calls * 1e6 for name in rivals}


def timed(call: Callable[[], object], calls: int) -> float:
    return timeit(call, number=calls)


def prometheus_inc() -> Callable[[], object]:
    calls = Counter("calls", "Model calls", ["model", "outcome"], registry=CollectorRegistry())
    return lambda: calls.labels("gpt-5", "success").inc()


def recorder(counters: ModelCounters) -> Callable[[], object]:
    return lambda: counters.record("gpt-5", "success", duration_seconds=1.25, usage=USAGE)


def from_threads(call: Callable[[], object], calls: int) -> float:
    """Seconds for so many calls, shared by the threads."""
    threads = [
        threading.Thread(target=timeit, args=(call,), kwargs={"number": calls // THREADS}) for _ in range(THREADS)
    ]
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
