"""A user with 100,000 threads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.threads import (
    PostgresThreadMap,
    RedisThreadMap,
    SqliteThreadMap,
    ThreadMap,
    ThreadPage,
)

pytestmark = [pytest.mark.anyio, pytest.mark.faults]  # what they show does not depend on the Python

_MANY = 100_000
_SECONDS = 20.0


@pytest.fixture(params=["sqlite", "postgres", "redis"])
async def threads(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ThreadMap]:
    fixture = request.getfixturevalue
    built: dict[str, Callable[[], ThreadMap]] = {
        "sqlite": lambda: SqliteThreadMap(tmp_path / "threads.db"),
        "postgres": lambda: PostgresThreadMap(fixture("postgres_dsn"), schema=fixture("postgres_schema")),
        "redis": lambda: RedisThreadMap(fixture("redis_url"), key_prefix=fixture("key_prefix")),
    }
    async with built[request.param]() as threads:
        yield threads


async def test_a_hundred_thousand_threads(threads: ThreadMap) -> None:
    ids = [f"t{number:06}" for number in range(_MANY)]
    for start in range(0, _MANY, 1000):
        assert all(claim.created for claim in await threads.claim_many(ids[start : start + 1000], "ann"))
    await threads.claim_many([f"few{number}" for number in range(100)], "bob")
    assert [await threads.count(user) for user in ("ann", "bob")] == [_MANY, 100]
    pages = [page async for page in pages_of(threads, limit=1000)]
    assert [record.thread_id for page in pages for record in page.items] == ids[::-1]
    deep = pages[94].next_cursor
    assert [record.thread_id for record in (await threads.list("ann", cursor=deep)).items] == ids[5000 - 1 : 4949 : -1]
    first = "the first page", lambda: threads.list("ann")
    await costs_at_most_twice(("the page after 95,000", lambda: threads.list("ann", cursor=deep)), first)
    await costs_at_most_twice(first, ("the first page of a hundred", lambda: threads.list("bob")))


async def pages_of(threads: ThreadMap, **query: Any) -> AsyncIterator[ThreadPage]:
    cursor = None
    while True:
        page = await threads.list("ann", cursor=cursor, **query)
        yield page
        if (cursor := page.next_cursor) is None:
            return


Named = tuple[str, Callable[[], Awaitable[object]]]


async def costs_at_most_twice(one: Named, other: Named) -> None:
    """The least of their times, which take turns until they show it: a busy machine delays, but hastens nothing."""
    deadline = time.monotonic() + _SECONDS
    times = {name: [await timed(call) for _ in range(10)] for name, call in (one, other)}
    while min(times[one[0]]) > 2 * min(times[other[0]]):
        assert time.monotonic() < deadline, {name: min(measured) for name, measured in times.items()}
        for name, call in (one, other):
            times[name].append(await timed(call))


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started
