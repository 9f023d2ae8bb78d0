"""What is measured of the stores, and the limits: how many times as fast as LangGraph's ours is."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import psycopg
from _store_bench import (
    Bench,
    Call,
    both,
    farther,
    medians,
    ours,
    peer,
    put_all,
    repeated,
    several,
    sync_peer,
    taken_in_turns,
)
from _verdicts import Verdict
from langgraph.store.base import BaseStore, GetOp, PutOp, SearchOp

Case = Callable[[Bench], Iterator[Verdict]]

NAMESPACES = 20
ITEMS = 10  # in each
VALUE = {
    "content": "likes tea with milk, in the afternoon; " * 4,
    "confidence": 0.9,
    "source": {"thread": "t1", "n": 7},
}
SLOW_SECONDS = 0.2
SLOW = ("slow",)

GETS = [GetOp(("users", f"u{n}"), "k3") for n in range(NAMESPACES)]
SEARCHES = [SearchOp(("users", f"u{n}"), limit=10) for n in range(10)]
PUTS = [PutOp(("users", f"u{n}"), "k5", VALUE) for n in range(NAMESPACES)]
MIXED = [*GETS[:10], *PUTS[10:], *SEARCHES[:5]]

CALLS: dict[str, tuple[Callable[[BaseStore], Call], float, float]] = {
    "single get": (lambda store: lambda: store.aget(("users", "u3"), "k3"), 1.8, 1.9),
    "20 gets in 20 namespaces": (lambda store: lambda: store.abatch(GETS), 8.0, 15.0),
    "10 searches": (lambda store: lambda: store.abatch(SEARCHES), 3.5, 8.0),
    "10 gets, 10 puts, 5 searches": (lambda store: lambda: store.abatch(MIXED), 4.0, 10.0),
    "20 puts": (lambda store: lambda: store.abatch(PUTS), 1.4, 1.0),
    "single put": (lambda store: lambda: store.aput(("users", "u3"), "k4", VALUE), 1.1, 1.0),
}

# Rows of one namespace take 0.2 s to be seen, which costs the server no CPU. No superuser is subject to that.
SLOWED = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY slow ON {table} USING (CASE WHEN {column} = 'slow' THEN pg_sleep(0.2)::text = '' ELSE true END)
"""
TABLES = {"store": "prefix", "deerflow_replica.store_items": "namespace"}


def calls(bench: Bench) -> Iterator[Verdict]:
    """One caller, p50 in us; a list of operations is one batch."""
    with bench.server.database() as dsn:
        yield from asyncio.run(_calls(bench, dsn, 1))


def calls_far(bench: Bench) -> Iterator[Verdict]:
    """The same, with 1 ms more to the server and back."""
    with bench.server.database() as dsn, ExitStack() as stack:
        yield from asyncio.run(_calls(bench, farther(bench.server, dsn, stack), 2))


async def _calls(bench: Bench, dsn: str, which_limit: int) -> list[Verdict]:
    verdicts = []
    async with both(dsn) as stores:
        for store in stores:
            filled = [PutOp(("users", f"u{n}"), f"k{i}", VALUE) for n in range(NAMESPACES) for i in range(ITEMS)]
            await put_all(store, filled)
        for name, case in CALLS.items():
            slow, fast = await medians([case[0](store) for store in stores], bench.size(300, 5))
            verdicts.append(_verdict(name, slow, fast, case[which_limit]))
    return verdicts


def beside_slow_searches(bench: Bench) -> Iterator[Verdict]:
    """A get's p99 in us, while two searches that take 0.2 s are always under way."""
    yield asyncio.run(_beside_slow_searches(bench))


async def _beside_slow_searches(bench: Bench) -> Verdict:
    with bench.server.database(is_plain_user=True) as dsn:
        async with both(dsn) as stores:
            p99 = []
            for store in stores:
                await store.aput(SLOW, "k", VALUE)
                await store.aput(("quick",), "k", VALUE)
            _slow_down(dsn)
            for store in stores:
                async with repeated(lambda store=store: store.asearch(SLOW), 2):  # type: ignore[misc]  # this one
                    (took,) = await _gets(store, bench.size(150, 5))
                p99.append(quantiles(took, n=100)[98])
        return _verdict("get p99", *p99, 10.0)


async def _gets(store: BaseStore, count: int) -> list[list[float]]:
    return await taken_in_turns([lambda: store.aget(("quick",), "k")], count)


def slow_threads(bench: Bench) -> Iterator[Verdict]:
    """4 threads with sync calls that take 0.2 s each, in us for one call of each."""
    with bench.server.database(is_plain_user=True) as dsn, sync_peer(dsn) as theirs, ours(dsn) as store:
        stores = (theirs, store)
        for one in stores:
            one.setup()
            one.put(SLOW, "k", VALUE)
        _slow_down(dsn)
        rounds = bench.size(5, 1)
        with ThreadPoolExecutor(4) as threads:
            took = [_threads_seconds(threads, lambda one=one: one.search(SLOW), rounds) for one in stores]
        yield _verdict("4 threads", *took, 3.5)


def _threads_seconds(threads: ThreadPoolExecutor, call: Callable[[], object], rounds: int) -> float:
    def work() -> None:
        for _ in range(rounds):
            call()

    started = perf_counter()
    for future in [threads.submit(work) for _ in range(4)]:
        future.result()
    return (perf_counter() - started) / rounds


def sync_get(bench: Bench) -> Iterator[Verdict]:
    """One thread without a loop, p50 in us."""
    with bench.server.database() as dsn, sync_peer(dsn) as theirs, ours(dsn) as store:
        stores = (theirs, store)
        for one in stores:
            one.setup()
            one.put(("users", "u3"), "k3", VALUE)
        slow, fast = _sync_medians(stores, bench.size(600, 5))
        yield _verdict("single get", slow, fast, 0.9)


def _sync_medians(stores: tuple[BaseStore, ...], rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in stores]
    for _ in range(rounds):
        for store, took in zip(stores, times, strict=True):
            started = perf_counter()
            store.get(("users", "u3"), "k3")
            took.append(perf_counter() - started)
    return [median(took) for took in times]


def namespaces(bench: Bench) -> Iterator[Verdict]:
    """100,000 items in 1,000 namespaces: the tenants, the first page of 100, and all, p50 in us."""
    with bench.server.database() as dsn:
        yield from asyncio.run(_namespaces(bench, dsn))


async def _namespaces(bench: Bench, dsn: str) -> list[Verdict]:
    groups, items, rounds = bench.size(1000, 10), bench.size(100, 5), bench.size(11, 2)
    async with both(dsn) as stores:
        for store in stores:
            filled = [PutOp((f"t{n % 20}", f"u{n:04}"), f"k{i}", VALUE) for n in range(groups) for i in range(items)]
            await put_all(store, filled)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        tenants, page, every = [
            await medians([partial(store.alist_namespaces, **asked) for store in stores], rounds)
            for asked in ({"max_depth": 1}, {"limit": 100}, {"limit": groups})
        ]
    return [_verdict("max_depth=1", *tenants, 20.0), _verdict("a page", *page, None), _verdict("all", *every, None)]


def setups(bench: Bench) -> Iterator[Verdict]:
    """Four replicas call setup() at once on each of ten fresh databases: how many succeed."""
    yield asyncio.run(_setups(bench))


async def _setups(bench: Bench) -> Verdict:
    databases = bench.size(10, 2)
    counts = []
    for new, set_up in ((peer, operator.methodcaller("setup")), (ours, operator.methodcaller("asetup"))):
        count = 0
        for _ in range(databases):
            with bench.server.database() as dsn:
                async with several(lambda dsn=dsn, new=new: new(dsn), 4) as replicas:  # type: ignore[misc]  # these
                    outcomes = await asyncio.gather(*map(set_up, replicas), return_exceptions=True)
                    count += sum(outcome is None for outcome in outcomes)
        counts.append(count)
    return Verdict(f"of {databases * 4} (LangGraph's: {counts[0]})", counts[1], databases * 4)


def increments(bench: Bench) -> Iterator[Verdict]:
    """Two replicas add one to the same item, fifty times each: what it holds in the end."""
    yield asyncio.run(_increments(bench))


async def _increments(bench: Bench) -> Verdict:
    times = bench.size(50, 5)
    totals = []
    with bench.server.database() as dsn:
        for new, increment in ((peer, _get_and_put), (ours, _update)):
            async with several(lambda new=new: new(dsn), 2) as replicas:  # type: ignore[misc]  # this one
                await (replicas[0].setup() if new is peer else replicas[0].asetup())
                await asyncio.gather(*(_each(increment, replica, times) for replica in replicas))
                totals.append((await replicas[0].aget(("sum",), "k")).value["n"])
    return Verdict(f"of {times * 2} (LangGraph's: {totals[0]})", totals[1], times * 2)


async def _each(increment: Callable[[Any], Any], replica: Any, times: int) -> None:
    for _ in range(times):
        await increment(replica)


async def _get_and_put(replica: Any) -> None:
    item = await replica.aget(("sum",), "k")
    await replica.aput(("sum",), "k", _one_more(item and item.value))


async def _update(replica: Any) -> None:
    await replica.aupdate(("sum",), "k", _one_more)


def _one_more(value: dict[str, Any] | None) -> dict[str, Any]:
    return {"n": (value or {"n": 0})["n"] + 1}


def _slow_down(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table, column in TABLES.items():
            connection.execute(SLOWED.format(table=table, column=column).encode())


def _verdict(name: str, slow: float, fast: float, limit: float | None) -> Verdict:
    return Verdict(f"{name}: {slow * 1e6:,.0f} to {fast * 1e6:,.0f}", slow / fast, limit)


CASES: dict[str, Case] = {
    "calls": calls,
    "calls-far": calls_far,
    "beside-slow-searches": beside_slow_searches,
    "slow-threads": slow_threads,
    "sync-get": sync_get,
    "namespaces": namespaces,
    "setups": setups,
    "increments": increments,
}
