"""What the calls of a thread map cost, for one user with 100, 10,000 and 100,000 threads, on each backend.

    python benchmarks/threads.py [--smoke]

Exits with 1 when a page costs more than twice the first page of a small user, or a claim of an own thread or
`owner_of` more than three times a lookup of one key through aiosqlite, or psycopg.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import aiosqlite
from psycopg import AsyncConnection

from deerflow_replica._drivers.embedded import EmbeddedPostgres
from deerflow_replica.threads import InMemoryThreadMap, PostgresThreadMap, SqliteThreadMap, ThreadMap

SIZES = (100, 10_000, 100_000)
GOALS = {"page": 2.0, "lookup": 3.0}
PAGES = ("first page", "deep page")
LOOKUP = "SELECT user_id FROM user_thread_mappings WHERE tenant = {} AND thread_id = {}"
KEY = ("default", "user100-000050")

Call = Callable[[], Awaitable[object]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="fewer threads; only show that it runs, judge no time")
    smoke = parser.parse_args().smoke
    sizes, rounds = (SIZES[:2], 50) if smoke else (SIZES, 300)
    machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    print(f"{machine}; first decile of {rounds}, in us")
    return 0 if asyncio.run(measured(sizes, rounds)) or smoke else 1


async def measured(sizes: tuple[int, ...], rounds: int) -> bool:
    kept = True
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres() as server:
        path = Path(folder) / "threads.db"
        for threads, peer in (
            (InMemoryThreadMap(), nullcontext(dict[str, Call]())),
            (SqliteThreadMap(path), through_aiosqlite(path)),
            (PostgresThreadMap(server.dsn), through_psycopg(server.dsn)),
        ):
            async with threads, peer as lookup:
                for size in sizes:
                    await fill(threads, size)
                rivals = {size: {**await calls(threads, size), **lookup} for size in sizes}
                kept &= report(type(threads).__name__, await interleaved(rivals, rounds))
    return kept


async def fill(threads: ThreadMap, size: int) -> None:
    ids = [f"user{size}-{number:06}" for number in range(size)]
    for start in range(0, size, 1000):
        await threads.claim_many(ids[start : start + 1000], f"user{size}", metadata={"title": "a thread"})


async def calls(threads: ThreadMap, size: int) -> dict[str, Call]:
    """`deep page` is the page of 50 after 95 % of the user's threads."""
    user, one = f"user{size}", f"user{size}-000050"
    deep = (await threads.list(user, limit=1, offset=size * 95 // 100 - 50)).next_cursor
    return {
        "claim own": lambda: threads.claim(one, user),
        "owner_of": lambda: threads.owner_of(one),
        "update": lambda: threads.update(one, user_id=user, metadata={"title": "another"}),
        "first page": lambda: threads.list(user),
        "deep page": lambda: threads.list(user, cursor=deep, limit=min(50, size // 20)),
    }


async def interleaved(rivals: dict[int, dict[str, Call]], rounds: int) -> dict[int, dict[str, float]]:
    """All take turns, so that what disturbs the machine disturbs all of them."""
    times = {size: {name: list[float]() for name in named} for size, named in rivals.items()}
    for _ in range(rounds):
        for size, named in rivals.items():
            for name, call in named.items():
                started = perf_counter()
                await call()
                times[size][name].append((perf_counter() - started) * 1e6)
    return {size: {name: quantiles(one, n=10)[0] for name, one in named.items()} for size, named in times.items()}


@asynccontextmanager
async def through_aiosqlite(path: Path) -> AsyncIterator[dict[str, Call]]:
    async with aiosqlite.connect(path) as connection:
        yield {"lookup": lambda: connection.execute_fetchall(LOOKUP.format("?", "?"), KEY)}


@asynccontextmanager
async def through_psycopg(dsn: str) -> AsyncIterator[dict[str, Call]]:
    async def lookup() -> Any:
        return await (await connection.execute(LOOKUP.format("%s", "%s").encode(), KEY)).fetchone()

    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        yield {"lookup": lookup}


def report(name: str, costs: dict[int, dict[str, float]]) -> bool:
    """Print one backend's table; whether its ratios are within the goals."""
    print(f"\n{name:20}" + "".join(f"{call:>12}" for call in costs[SIZES[0]]))
    for size, cost in costs.items():
        print(f"{size:12,} threads" + "".join(f"{microseconds:12.0f}" for microseconds in cost.values()))
    small, large = costs[min(costs)], costs[max(costs)]
    ratios = [("page", f"{call} / first page of 100", large[call] / small["first page"]) for call in PAGES]
    if "lookup" in large:
        ratios += [("lookup", f"{call} / lookup", large[call] / large["lookup"]) for call in ("claim own", "owner_of")]
    for goal, text, ratio in ratios:
        print(f"  {text:36} {ratio:5.2f}   limit {GOALS[goal]}   {'kept' if ratio <= GOALS[goal] else 'BROKEN'}")
    return all(ratio <= GOALS[goal] for goal, _, ratio in ratios)


if __name__ == "__main__":
    sys.exit(main())
