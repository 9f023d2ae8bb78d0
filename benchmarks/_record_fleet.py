"""What a fleet of replicas costs its database: flushes, statements, and how soon a sibling knows."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from _verdicts import Verdict
from psycopg import AsyncConnection

from deerflow_replica._drivers.embedded import EmbeddedPostgres, EmbeddedValkey
from deerflow_replica._drivers.postgres import PostgresDatabase
from deerflow_replica._drivers.redis_database import RedisDatabase
from deerflow_replica._drivers.sqlite import SqliteDatabase
from deerflow_replica.counters import (
    ModelCounters,
    ModelHealth,
    PostgresModelCounters,
    RedisModelCounters,
    SqliteModelCounters,
)
from deerflow_replica.counters._ledger import Snapshot

QUIET: dict[str, Any] = {"flush_interval_seconds": 3600.0}
MODELS = ("gpt-5", "claude", "gemini")
USAGE = {
    "input_tokens": 1200,
    "output_tokens": 80,
    "total_tokens": 1280,
    "input_token_details": {"cache_read": 1000},
    "output_token_details": {"reasoning": 20},
}
REPLICAS_AT_ONCE = 16
UPSERT = """
INSERT INTO per_call (model_name, call_count) VALUES (%s, 1)
ON CONFLICT (model_name) DO UPDATE SET call_count = per_call.call_count + 1
"""


class Counted(PostgresModelCounters):
    writes = 0

    async def _write(self, snapshot: Snapshot) -> None:
        self.writes += 1
        await super()._write(snapshot)


def one_call(counters: ModelCounters, model: str = "gpt-5") -> None:
    counters.record(model, "success", duration_seconds=1.25, usage=USAGE)


async def flushes(replicas: int, rounds: int) -> AsyncIterator[Verdict]:
    """So many replicas that flush at once, each with the counts of three models; and one read of the fleet."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey() as valkey:
        file, shared = SqliteDatabase(Path(folder) / "fleet.db"), RedisDatabase(valkey.url)
        builds: dict[str, Callable[[], ModelCounters]] = {
            "SQLite": lambda: SqliteModelCounters(file.path, _database=file, **QUIET),
            "Valkey": lambda: RedisModelCounters(_database=shared, **QUIET),
        }
        for name, build in builds.items():
            async with fleet(build, replicas) as members:
                rate = await _rate(members, rounds)
                yield Verdict(f"{replicas} replicas on {name}: flushes/s", rate)
                started = perf_counter()
                totals = await members[0].totals()
                yield Verdict(f"{replicas} replicas on {name}: totals of the fleet, ms", _since(started) * 1e3)
                assert totals["gpt-5"].call_count == rounds * replicas


async def database(seconds: float) -> AsyncIterator[Verdict]:
    """On one PostgreSQL: a call against a statement for each call, and what a busy fleet sends it."""
    with EmbeddedPostgres() as server:
        shared = PostgresDatabase(server.dsn)
        async with fleet(lambda: Counted(_database=shared), REPLICAS_AT_ONCE) as members:
            peer, ours = await _upsert_seconds(server.dsn, 300), _record_seconds(members[0], 20_000)
            yield Verdict("one call: an awaited upsert on PostgreSQL, us", peer * 1e6)
            yield Verdict("one call: the upsert, in times record()", peer / ours, 20)
            for calls in (1000, 16_000):
                rate = await _statements(members, calls, seconds)
                text = f"{REPLICAS_AT_ONCE} replicas, {calls:,} calls/s: statements of one in {seconds:g} s"
                yield Verdict(text, rate, seconds + 1 if calls == 1000 else None, at_most=True)
            yield Verdict("an opening is seen by a sibling, s", await _opening_seconds(members), 2.5, at_most=True)


@asynccontextmanager
async def fleet(build: Callable[[], Any], replicas: int) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(build()) for _ in range(replicas)]


async def _rate(members: list[ModelCounters], rounds: int) -> float:
    started = perf_counter()
    for _ in range(rounds):
        for counters in members:
            for model in MODELS:
                one_call(counters, model)
        await asyncio.gather(*[counters.flush() for counters in members])
    return rounds * len(members) / _since(started)


async def _upsert_seconds(dsn: str, calls: int) -> float:
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("CREATE TABLE per_call (model_name text PRIMARY KEY, call_count bigint NOT NULL)")
        started = perf_counter()
        for _ in range(calls):
            await connection.execute(UPSERT, ("gpt-5",))
        return _since(started) / calls


def _record_seconds(counters: ModelCounters, calls: int) -> float:
    started = perf_counter()
    for _ in range(calls):
        one_call(counters)
    return _since(started) / calls


async def _statements(members: list[Counted], calls_a_second: int, seconds: float) -> float:
    await asyncio.gather(*[counters.flush() for counters in members])
    before, started = sum(counters.writes for counters in members), perf_counter()
    for due in _paced(calls_a_second, seconds):
        one_call(members[due % len(members)])
        if due % 50 == 0:
            await asyncio.sleep(max(0.0, started + due / calls_a_second - perf_counter()))
    return (sum(counters.writes for counters in members) - before) / len(members)


def _paced(calls_a_second: int, seconds: float) -> Iterator[int]:
    return iter(range(int(calls_a_second * seconds)))


async def _opening_seconds(members: list[Counted]) -> float:
    here, there = [ModelHealth(counters) for counters in members[:2]]
    started = perf_counter()
    members[0].record("ill", "failure", error_type="auth")
    while there.state("ill").state != "open":  # noqa: ASYNC110  # another thread's work, looked at from outside
        await asyncio.sleep(0.005)
    found = _since(started)
    for health in (here, there):
        await health.close()
    return found


def _since(started: float) -> float:
    return perf_counter() - started
