"""What the calls of a thread map cost, for one user with 100, 10,000 and 100,000 threads, on each backend.

    python benchmarks/threads.py [--smoke] [--million] [--only BACKEND ...]

`--million` adds a user with 1,000,000 threads on PostgreSQL and Redis. MongoDB is measured where MONGO_URL names one,
else on FerretDB where Go builds it: that reads the whole collection for a list, so it has 10,000 threads at most, and
no limit is set for its lists. Exits with 1 when a page costs more than twice the first page of a small user, or a claim
of an own thread or `owner_of` more than three times a lookup of one key with the same driver.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any, NamedTuple

import aiosqlite
from psycopg import AsyncConnection
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from deerflow_replica._drivers.embedded import EmbeddedPostgres, EmbeddedValkey
from deerflow_replica.threads import (
    InMemoryThreadMap,
    MongoThreadMap,
    PostgresThreadMap,
    RedisThreadMap,
    SqliteThreadMap,
    ThreadMap,
)

SIZES = (100, 10_000, 100_000)
MILLION = 1_000_000
GOALS = {"page": 2.0, "lookup": 3.0}
PAGES = ("first page", "deep page")
LOOKUP = "SELECT user_id FROM user_thread_mappings WHERE tenant = {} AND thread_id = {}"
KEY = ("default", "user100-000050")

_FEW, _LONG = 3, 50_000  # rounds, and microseconds

Call = Callable[[], Awaitable[object]]


class Case(NamedTuple):
    """A backend, the same driver's lookup of one key, and what is asked of it."""

    threads: ThreadMap
    lookup: dict[str, Call]
    sizes: tuple[int, ...]
    reads_all: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="fewer threads; only show that it runs, judge no time")
    parser.add_argument("--million", action="store_true", help="a user with 1,000,000 threads on PostgreSQL and Redis")
    parser.add_argument("--only", nargs="+", choices=BACKENDS, default=list(BACKENDS), metavar="BACKEND")
    options = parser.parse_args()
    rounds = 50 if options.smoke else 300
    machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {load}; first decile of {rounds}, in us")
    kept = asyncio.run(measured(options.only, rounds, smoke=options.smoke, million=options.million))
    return 0 if kept or options.smoke else 1


async def measured(names: list[str], rounds: int, *, smoke: bool, million: bool) -> bool:
    kept = True
    for name in names:
        sizes = SIZES[:2] if smoke else SIZES
        if million and name in ("postgres", "redis"):
            sizes = (*sizes, MILLION)
        async with AsyncExitStack() as stack:
            case = await BACKENDS[name](stack, sizes)
            if case is not None:
                kept &= report(case, await interleaved(await rivals(case), rounds))
    return kept


async def rivals(case: Case) -> dict[int, dict[str, Call]]:
    for size in case.sizes:
        await fill(case.threads, size)
    return {size: {**await calls(case.threads, size), **case.lookup} for size in case.sizes}


async def fill(threads: ThreadMap, size: int) -> None:
    ids = [f"user{size}-{number:06}" for number in range(size)]
    for start in range(0, size, 1000):
        await threads.claim_many(ids[start : start + 1000], f"user{size}", metadata={"title": "a thread"})


async def calls(threads: ThreadMap, size: int) -> dict[str, Call]:
    """`deep page` is the page of 50 after 95 % of the user's threads."""
    user, one = f"user{size}", f"user{size}-000050"
    many = [f"user{size}-{number:06}" for number in range(min(size, 1000))]
    deep = (await threads.list(user, limit=1, offset=size * 95 // 100 - 50)).next_cursor
    return {
        "claim own": lambda: threads.claim(one, user),
        "owner_of": lambda: threads.owner_of(one),
        "owners_of": lambda: threads.owners_of(many),
        "update": lambda: threads.update(one, user_id=user, metadata={"title": "another"}),
        "count": lambda: threads.count(user),
        "first page": lambda: threads.list(user),
        "deep page": lambda: threads.list(user, cursor=deep, limit=min(50, size // 20)),
    }


async def interleaved(rivals: dict[int, dict[str, Call]], rounds: int) -> dict[int, dict[str, float]]:
    """All take turns, so that what disturbs the machine disturbs all of them; what takes long is asked less often."""
    times = {size: {name: list[float]() for name in named} for size, named in rivals.items()}
    for turn in range(rounds):
        for size, named in rivals.items():
            for name, call in named.items():
                so_far = times[size][name]
                if turn > _FEW and turn % (10 * _FEW) and min(so_far) > _LONG:
                    continue
                started = perf_counter()
                await call()
                so_far.append((perf_counter() - started) * 1e6)
    return {size: {name: quantiles(one, n=10)[0] for name, one in named.items()} for size, named in times.items()}


async def in_memory(stack: AsyncExitStack, sizes: tuple[int, ...]) -> Case:
    return Case(await stack.enter_async_context(InMemoryThreadMap()), {}, sizes)


async def on_sqlite(stack: AsyncExitStack, sizes: tuple[int, ...]) -> Case:
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "threads.db"
    threads = await stack.enter_async_context(SqliteThreadMap(path))
    connection = await stack.enter_async_context(aiosqlite.connect(path))
    return Case(threads, {"lookup": lambda: connection.execute_fetchall(LOOKUP.format("?", "?"), KEY)}, sizes)


async def on_postgres(stack: AsyncExitStack, sizes: tuple[int, ...]) -> Case:
    server = stack.enter_context(EmbeddedPostgres())
    threads = await stack.enter_async_context(PostgresThreadMap(server.dsn))
    connection = await stack.enter_async_context(await AsyncConnection.connect(server.dsn, autocommit=True))

    async def lookup() -> Any:
        return await (await connection.execute(LOOKUP.format("%s", "%s").encode(), KEY)).fetchone()

    return Case(threads, {"lookup": lookup}, sizes)


async def on_redis(stack: AsyncExitStack, sizes: tuple[int, ...]) -> Case:
    server = stack.enter_context(EmbeddedValkey())
    threads = await stack.enter_async_context(RedisThreadMap(server.url))
    client = await stack.enter_async_context(Redis.from_url(server.url))
    return Case(threads, {"lookup": lambda: client.hget("{deerflow:utm:default}:rows", KEY[1])}, sizes)  # type: ignore[dict-item]  # redis-py's own types name both its clients


async def on_mongodb(stack: AsyncExitStack, sizes: tuple[int, ...]) -> Case | None:
    url, is_ferretdb = os.environ.get("MONGO_URL"), False
    if url is None:
        url, is_ferretdb = _ferretdb(stack), True
    if url is None:
        return None
    client = await stack.enter_async_context(AsyncMongoClient[dict[str, Any]](url))
    database = f"benchmark_{os.getpid()}"
    stack.push_async_callback(client.drop_database, database)
    threads = await stack.enter_async_context(MongoThreadMap(url, database=database))
    collection = client[database]["user_thread_mappings"]
    lookup: dict[str, Call] = {"lookup": lambda: collection.find_one({"_id": ":".join(KEY)}, {"user_id": 1})}
    return Case(threads, lookup, sizes[:2] if is_ferretdb else sizes, reads_all=is_ferretdb)


def _ferretdb(stack: AsyncExitStack) -> str | None:
    """The tests build one."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from mongo_server import CannotBuildError, FerretDB

    try:
        return stack.enter_context(FerretDB()).url
    except CannotBuildError as error:
        print(f"\nMongoThreadMap is left out: {error}")
        return None


BACKENDS: dict[str, Callable[[AsyncExitStack, tuple[int, ...]], Awaitable[Case | None]]] = {
    "memory": in_memory,
    "sqlite": on_sqlite,
    "postgres": on_postgres,
    "redis": on_redis,
    "mongodb": on_mongodb,
}


def report(case: Case, costs: dict[int, dict[str, float]]) -> bool:
    """Print one backend's table; whether its ratios are within the goals."""
    small, large = costs[min(costs)], costs[max(costs)]
    print(f"\n{type(case.threads).__name__:20}" + "".join(f"{call:>12}" for call in small))
    for size, cost in costs.items():
        print(f"{size:12,} threads" + "".join(f"{microseconds:12.0f}" for microseconds in cost.values()))
    ratios = [("page", f"{call} / first page of 100", large[call] / small["first page"]) for call in PAGES]
    if case.reads_all:
        ratios = []
    if "lookup" in large:
        ratios += [("lookup", f"{call} / lookup", large[call] / large["lookup"]) for call in ("claim own", "owner_of")]
    for goal, text, ratio in ratios:
        print(f"  {text:36} {ratio:6.2f}   limit {GOALS[goal]:g}   {'kept' if ratio <= GOALS[goal] else 'BROKEN'}")
    return all(ratio <= GOALS[goal] for goal, _, ratio in ratios)


if __name__ == "__main__":
    sys.exit(main())
