"""What the calls of a thread map cost, for one user with 100, 10,000 and 100,000 threads, on each backend.

    python benchmarks/threads.py [--smoke] [--million] [--only BACKEND ...]

`--million` adds a user with 1,000,000 threads on PostgreSQL and Redis. MongoDB is measured where MONGO_URL names one,
else on FerretDB where Go has built it: that reads the whole collection for a list, for a count and for the owners of
many, so no limit is set there. What takes 50 ms is asked ten times, what takes 0.5 s three times, and what takes 5 s
once; the tables say so.
Beside SQLite stands DeerFlow's list of a user's threads: its table, its statement and aiosqlite, without its ORM.
Exits with 1 when a limit is missed. `--smoke` has fewer threads and judges nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from statistics import quantiles
from time import perf_counter, time_ns
from typing import Any, NamedTuple

import aiosqlite
from _threads_peer import deerflows_lists
from _verdicts import Verdict, told
from psycopg import AsyncConnection
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
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
from deerflow_replica.threads.mongo_rows import document_of
from deerflow_replica.threads.paging import Filters, binding, write_cursor
from deerflow_replica.threads.rules import NewThread

SIZES = (100, 10_000, 100_000)
MILLION = 1_000_000
PAGES = ("first page", "deep page")
LOOKUP = "SELECT user_id FROM user_thread_mappings WHERE tenant = {} AND thread_id = {}"
KEY = ("default", "user100-000050")

_EVERY = ((50_000, 1), (500_000, 30), (5_000_000, 100))  # in which turns to ask what takes so many microseconds
_LONG = 500_000

Call = Callable[[], Awaitable[object]]
Times = dict[int, dict[str, list[float]]]


class Case(NamedTuple):
    """A backend, the same driver's lookup of one key, and what is asked of it."""

    threads: ThreadMap
    lookup: dict[str, Call]
    sizes: tuple[int, ...]
    reads_all: bool = False
    fill: Callable[[int], Awaitable[object]] | None = None
    peers: Callable[[int], Awaitable[dict[str, Call]]] | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="few threads; only show that it runs, judge nothing")
    parser.add_argument("--million", action="store_true", help="a user with 1,000,000 threads on PostgreSQL and Redis")
    parser.add_argument("--only", nargs="+", choices=BACKENDS, default=list(BACKENDS), metavar="BACKEND")
    options = parser.parse_args()
    rounds = 10 if options.smoke else 300
    machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, {load}; first decile of {rounds}, in us")
    kept = asyncio.run(measured(options.only, rounds, smoke=options.smoke, million=options.million))
    return 0 if kept or options.smoke else 1


async def measured(names: list[str], rounds: int, *, smoke: bool, million: bool) -> bool:
    kept = True
    for name in names:
        sizes = (100, 1000) if smoke else SIZES
        if million and name in ("postgres", "redis"):
            sizes = (*sizes, MILLION)
        async with AsyncExitStack() as stack:
            case = await BACKENDS[name](stack, sizes)
            if case is not None:
                times = await interleaved(await rivals(case), rounds)
                costs = {
                    size: {call: first_decile(one) for call, one in named.items()} for size, named in times.items()
                }
                show(case, costs)
                tell_rounds(times, rounds)
                kept &= told(verdicts(case, costs), is_judged=not smoke)
    return kept


async def rivals(case: Case) -> dict[int, dict[str, Call]]:
    for size in case.sizes:
        await (case.fill(size) if case.fill else fill(case.threads, size))
    asked = {size: {**await calls(case.threads, size), **case.lookup} for size in case.sizes}
    if case.peers is not None:
        largest = max(case.sizes)
        asked[largest] |= await case.peers(largest)
    return asked


async def fill(threads: ThreadMap, size: int) -> None:
    ids = thread_ids(size)
    for start in range(0, size, 1000):
        await threads.claim_many(ids[start : start + 1000], f"user{size}", metadata={"title": "a thread"})


def thread_ids(size: int) -> list[str]:
    return [f"user{size}-{number:06}" for number in range(size)]


async def calls(threads: ThreadMap, size: int) -> dict[str, Call]:
    """`deep page` is the page of 50 after 95 % of the user's threads."""
    user, one = f"user{size}", f"user{size}-000050"
    many = thread_ids(min(size, 1000))
    numbers = count()
    deep = await cursor_after(threads, user, size * 95 // 100 - 50)
    return {
        "claim new": lambda: threads.claim(f"new{size}-{next(numbers)}", "new"),
        "claim own": lambda: threads.claim(one, user),
        "owner_of": lambda: threads.owner_of(one),
        "owners_of": lambda: threads.owners_of(many),
        "update": lambda: threads.update(one, user_id=user, metadata={"title": "another"}),
        "count": lambda: threads.count(user),
        "first page": lambda: threads.list(user),
        "deep page": lambda: threads.list(user, cursor=deep, limit=min(50, size // 20)),
    }


async def cursor_after(threads: ThreadMap, user: str, place: int) -> str:
    """Of the thread at this place, the newest is at 0. Asked for, with an offset, it would cost as much as a page."""
    newest = int(user.removeprefix("user")) - 1
    thread = await threads.get(f"{user}-{newest - place:06}", user_id=user)
    assert thread is not None
    updated_at = (thread.updated_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    bound_to = binding("default", user, "updated_at", "desc", Filters(None, "{}", None))
    return write_cursor((updated_at, thread.thread_id), bound_to)


async def interleaved(rivals: dict[int, dict[str, Call]], rounds: int) -> Times:
    """All take turns, so that what disturbs the machine disturbs all of them; what takes long is asked less often."""
    times = {size: {name: list[float]() for name in named} for size, named in rivals.items()}
    for turn in range(rounds):
        for size, named in rivals.items():
            for name, call in named.items():
                so_far = times[size][name]
                if so_far and not is_due(turn, min(so_far)):
                    continue
                started = perf_counter()
                await call()
                so_far.append((perf_counter() - started) * 1e6)
                if so_far[-1] > _LONG:
                    print(f"  {name} of {size:,}: {so_far[-1] / 1e6:.1f} s", flush=True)
    return times


def is_due(turn: int, microseconds: float) -> bool:
    return any(microseconds < limit and turn % every == 0 for limit, every in _EVERY)


def first_decile(times: list[float]) -> float:
    return quantiles(times, n=10, method="inclusive")[0] if len(times) > 1 else times[0]


async def in_memory(stack: AsyncExitStack, sizes: tuple[int, ...]) -> Case:
    return Case(await stack.enter_async_context(InMemoryThreadMap()), {}, sizes)


async def on_sqlite(stack: AsyncExitStack, sizes: tuple[int, ...]) -> Case:
    path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "threads.db"
    threads = await stack.enter_async_context(SqliteThreadMap(path))
    connection = await stack.enter_async_context(aiosqlite.connect(path))
    lookup: dict[str, Call] = {"lookup": lambda: connection.execute_fetchall(LOOKUP.format("?", "?"), KEY)}
    return Case(threads, lookup, sizes, peers=partial(deerflows_lists, stack, path.with_name("deerflow.db")))


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
    threads = await stack.enter_async_context(MongoThreadMap(url, database=database, operation_timeout_seconds=300))
    collection = client[database]["user_thread_mappings"]
    lookup: dict[str, Call] = {"lookup": lambda: collection.find_one({"_id": ":".join(KEY)}, {"user_id": 1})}
    return Case(threads, lookup, sizes, is_ferretdb, fill=partial(insert, collection))


async def insert(collection: AsyncCollection[dict[str, Any]], size: int) -> None:
    """As `fill` would, but it looks for no thread first, for which FerretDB reads the whole collection."""
    new = NewThread(f"user{size}", None, None, "idle", '{"title":"a thread"}', None, "made")
    now = time_ns() // 1000
    documents = [document_of("default", new.row(one, now + number)) for number, one in enumerate(thread_ids(size))]
    for start in range(0, size, 1000):
        await collection.insert_many(documents[start : start + 1000], ordered=False)


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


def show(case: Case, costs: dict[int, dict[str, float]]) -> None:
    largest = costs[max(costs)]
    print(f"\n{type(case.threads).__name__:20}" + "".join(f"{call:>15}" for call in largest))
    for size, cost in costs.items():
        print(f"{size:12,} threads" + "".join(f"{microseconds:15.0f}" for microseconds in cost.values()))


def tell_rounds(times: Times, rounds: int) -> None:
    for size, named in times.items():
        fewer = [f"{call} {len(one)}" for call, one in named.items() if len(one) < rounds]
        if fewer:
            print(f"  asked fewer times with {size:,}: {', '.join(fewer)}")


def verdicts(case: Case, costs: dict[int, dict[str, float]]) -> Iterator[Verdict]:
    small, large = costs[min(costs)], costs[max(costs)]
    for page in PAGES:
        limit = None if case.reads_all else 2.0
        yield Verdict(f"{page} / first page of {min(costs)}", large[page] / small["first page"], limit, at_most=True)
    if not case.lookup:
        return
    for call in ("claim own", "owner_of"):
        yield Verdict(f"{call} / lookup", large[call] / large["lookup"], 3.0, at_most=True)
    one_by_one = 1000 * large["owner_of"] / large["owners_of"]
    yield Verdict("1000 times owner_of / owners_of of 1000", one_by_one, None if case.reads_all else 20.0)
    for page, limit in zip(PAGES, (20.0, 100.0), strict=True):
        if f"its {page}" in large:
            yield Verdict(f"DeerFlow's {page} / {page}", large[f"its {page}"] / large[page], limit)


if __name__ == "__main__":
    sys.exit(main())
