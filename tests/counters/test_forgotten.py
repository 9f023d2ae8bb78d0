"""Rows that were folded a month ago: gone where nobody wrote them since, and no total changes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from deerflow_replica.counters import PostgresModelCounters, RedisModelCounters, SqliteModelCounters
from deerflow_replica.counters._fleet import FOLDED_KEPT_SECONDS
from deerflow_replica.counters._ledger import Row, Snapshot
from deerflow_replica.counters.redis import CounterKeys

pytestmark = pytest.mark.anyio

LONG_AGO = time.time() - FOLDED_KEPT_SECONDS - 60

Place = tuple[Callable[..., Any], Callable[[], object], Callable[[], int]]
"""How to build counters, to make the rows look old, and to count the rows of replicas."""


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    of = request.getfixturevalue
    if request.param == "sqlite":
        return sqlite_place(tmp_path / "counters.db")
    if request.param == "redis":
        return redis_place(of("redis_url"), of("key_prefix"))
    return postgres_place(of("postgres_dsn"), of("postgres_schema"))


def sqlite_place(path: Path) -> Place:
    def execute(statement: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    age = "UPDATE model_usage_stats SET written_at = ?, folded_at = ? WHERE boot_id <> ''"
    count = "SELECT count(*) FROM model_usage_stats WHERE bucket = 0 AND boot_id <> ''"
    return (
        partial(SqliteModelCounters, path),
        lambda: execute(age, LONG_AGO, LONG_AGO),
        lambda: execute(count)[0][0],
    )


def postgres_place(dsn: str, schema: str) -> Place:
    table = f'"{schema}".model_usage_stats'

    def execute(statement: str, *values: object) -> Any:
        with psycopg.connect(dsn, autocommit=True) as connection:
            return connection.execute(statement.encode(), values)

    age = f"UPDATE {table} SET written_at = to_timestamp(%s), folded_at = to_timestamp(%s) WHERE boot_id <> ''"
    count = f"SELECT count(*) FROM {table} WHERE bucket = 0 AND boot_id <> ''"
    return (
        partial(PostgresModelCounters, dsn, schema=schema),
        lambda: execute(age, LONG_AGO, LONG_AGO),
        lambda: int(execute(count).fetchone()[0]),
    )


def redis_place(url: str, prefix: str) -> Place:
    keys = CounterKeys(prefix)

    def age() -> None:
        with redis.Redis.from_url(url) as client:
            fields: Any = client.zrange(keys.folded_at, 0, -1)
            if fields:
                client.zadd(keys.folded_at, dict.fromkeys(fields, LONG_AGO))

    def count() -> int:
        with redis.Redis.from_url(url) as client:
            fields: Any = client.hkeys(keys.totals)
            return max(sum(b'["", ' not in field for field in fields), int(client.hlen(keys.folded)))

    return partial(RedisModelCounters, url, key_prefix=prefix), age, count


async def test_rows_of_the_dead_go_and_their_counts_stay(place: Place) -> None:
    build, age, count = place
    async with build() as dead:
        for name in ("m", "n"):
            dead.record(name, "success", duration_seconds=0.5)
    async with build() as counters:
        before = await counters.totals()
        assert await counters.compact(dead_after_seconds=0) == 2
        assert await counters.compact() == 0
        assert count() == 2, "kept, in case it was only asleep"
        age()
        assert await counters.compact() == 0
        assert count() == 0
        assert await counters.totals() == before
        assert before["m"].call_count == 1


async def test_there_may_be_any_number_of_them(place: Place) -> None:
    build, age, count = place
    rows = tuple(Row(0, f"m{number:04}", {"call_count": 1}) for number in range(1001))
    async with build() as counters, build() as sibling:
        await sibling._write(Snapshot(1, 1, rows, {}))
        assert await counters.compact(dead_after_seconds=0) == 1001
        age()
        assert await counters.compact() == 0
        assert count() == 0
        assert sum(total.call_count for total in (await counters.totals()).values()) == 1001


async def test_who_came_back_after_it_was_folded_stays(place: Place) -> None:
    build, age, count = place
    async with build(flush_interval_seconds=3600) as sleeper, build() as counters:
        sleeper.record("m", "success")
        await sleeper.flush()
        assert await counters.compact(dead_after_seconds=0) == 1
        age()
        sleeper.record("m", "success")
        await sleeper.flush()
        assert await counters.compact() == 0
        assert count() == 1
        assert (await counters.totals())["m"].call_count == 2
        sleeper.record("m", "success")
        await sleeper.flush()
        assert (await counters.totals())["m"].call_count == 3
        age()
        await counters.compact(dead_after_seconds=10 * FOLDED_KEPT_SECONDS)
        assert (await counters.totals())["m"].call_count == 3, "what was not folded is not dropped"


async def test_who_says_now_and_then_that_it_is_there_stays(place: Place) -> None:
    build, age, count = place
    async with build(flush_interval_seconds=3600) as idle, build() as counters:
        idle.record("m", "success")
        await idle.flush()
        assert await counters.compact(dead_after_seconds=0) == 1
        age()
        await idle._runner.acall(idle._written(everything=True))
        await counters.compact()
        assert count() == 1
        idle.record("m", "success")
        await idle.flush()
        assert (await counters.totals())["m"].call_count == 2
