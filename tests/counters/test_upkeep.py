"""What a replica does once an hour: its rows stay alive, and those of dead replicas are folded."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.counters import SqliteModelCounters
from waiting import eventually

pytestmark = pytest.mark.anyio

DAY = 86400.0


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., SqliteModelCounters]:
    def built(**common: Any) -> SqliteModelCounters:
        return SqliteModelCounters(tmp_path / "counters.db", flush_interval_seconds=0.02, **common)

    return built


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., list[Any]]:
    """Run SQL in the file of the test."""

    def executed(statement: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(tmp_path / "counters.db", timeout=10)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    return executed


def an_hour_later(counters: SqliteModelCounters) -> None:
    counters._writes.everything_at -= 3601


async def test_a_model_that_a_live_replica_does_not_use_is_never_taken_for_dead(build: Any, execute: Any) -> None:
    async with build() as counters:
        counters.record("idle", "success")
        await counters.flush()
        execute("UPDATE model_usage_stats SET written_at = ?", time.time() - 2 * DAY)
        an_hour_later(counters)
        counters.record("busy", "success")
        recent = "SELECT 1 FROM model_usage_stats WHERE bucket = 0 AND model_name = 'idle' AND written_at > ?"
        await eventually(lambda: execute(recent, time.time() - 60))
        assert await counters.compact() == 0


async def test_a_model_that_was_folded_long_ago_and_is_used_again_counts_once(build: Any, execute: Any) -> None:
    """Its replica lived all the time, so it writes absolute values that the base row has already."""
    async with build() as counters, build() as sibling:
        counters.record("m", "success")
        await counters.flush()
        assert await sibling.compact(dead_after_seconds=0) == 1
        long_ago = time.time() - 31 * DAY
        execute("UPDATE model_usage_stats SET written_at = ?, folded_at = ? WHERE boot_id <> ''", long_ago, long_ago)
        an_hour_later(counters)
        await eventually(lambda: execute("SELECT 1 FROM model_usage_stats WHERE written_at > folded_at"))
        await sibling.compact()
        counters.record("m", "success")
        await counters.flush()
        assert (await sibling.totals())["m"].call_count == 2


async def test_the_rows_of_dead_replicas_are_folded_by_themselves(build: Any, execute: Any) -> None:
    for _ in range(3):
        async with build() as dead:
            dead.record("m", "success", duration_seconds=0.5)
    execute("UPDATE model_usage_stats SET written_at = ?", time.time() - 2 * DAY)
    async with build() as counters:
        before = await counters.totals()
        assert before["m"].call_count == 3
        an_hour_later(counters)
        await eventually(lambda: execute("SELECT 1 FROM model_usage_stats WHERE bucket = 0 AND boot_id = ''"))
        assert execute("SELECT count(*) FROM model_usage_stats WHERE bucket = 0 AND folded IS NULL") == [(1,)]
        assert await counters.totals() == before
