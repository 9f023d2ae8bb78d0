"""Several processes at once, and processes that are killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.counters import (
    ModelCounters,
    ModelHealth,
    MongoModelCounters,
    PostgresModelCounters,
    RedisModelCounters,
    SqliteModelCounters,
)
from waiting import eventually

pytestmark = pytest.mark.anyio

WORKER = Path(__file__).with_name("worker.py")
INTERVAL_SECONDS = 0.2  # the worker's
BUSY_MACHINE_SECONDS = 1.5  # what a flush may take, and its thread may wait for its turn, while other tests run

PLACES = pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis", "mongo"])


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if kind == "sqlite":
        return {"path": str(tmp_path / "counters.db")}
    if kind == "redis":
        return {"redis_url": request.getfixturevalue("redis_url"), "key_prefix": request.getfixturevalue("key_prefix")}
    if kind == "mongo":
        return {"uri": request.getfixturevalue("mongo_url"), "database": request.getfixturevalue("mongo_database")}
    return {"dsn": request.getfixturevalue("postgres_dsn"), "schema": request.getfixturevalue("postgres_schema")}


@asynccontextmanager
async def opened(place: dict[str, str]) -> AsyncIterator[ModelCounters]:
    async with built(place) as counters:
        yield counters


def built(place: Any) -> ModelCounters:
    if "path" in place:
        return SqliteModelCounters(**place)
    if "redis_url" in place:
        return RedisModelCounters(**place)
    return MongoModelCounters(**place) if "uri" in place else PostgresModelCounters(**place)


def start(place: dict[str, str], *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(WORKER), json.dumps(place), *map(str, arguments)])


async def calls(counters: ModelCounters) -> int:
    totals = (await counters.totals()).get("m")
    return totals.call_count if totals else 0


@PLACES
async def test_processes_and_threads_lose_nothing_while_others_compact(place: dict[str, str]) -> None:
    workers = [start(place, "threads", 4, 200) for _ in range(3)]
    try:
        async with opened(place) as counters:
            while any(worker.poll() is None for worker in workers):
                before = await calls(counters)
                await counters.compact(dead_after_seconds=0)
                assert await calls(counters) >= before
            assert [worker.wait() for worker in workers] == [0, 0, 0]
            totals = (await counters.totals())["m"]
            assert (totals.call_count, totals.input_tokens, totals.latency.sum_seconds) == (2400, 7200, 1200.0)
            await counters.compact(dead_after_seconds=0)
            assert (await counters.totals())["m"] == totals
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@PLACES
async def test_no_two_processes_ever_hold_one_probe_together(place: dict[str, str], tmp_path: Path) -> None:
    async with opened(place) as counters:
        health = ModelHealth(counters, open_seconds=0.001, max_open_seconds=0.001)
        counters.record("m", "failure", error_type="auth")
        await health.refresh()
    log = tmp_path / "held"
    processes = [start(place, "probe", log, 0.7) for _ in range(2)]
    try:
        assert [await asyncio.to_thread(process.wait) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    held = sorted(tuple(map(float, line.split())) for line in log.read_text().splitlines())
    assert len(held) >= 3
    for (_, ended), (began, _) in pairwise(held):
        assert ended <= began, "two had the probe at one time"


def read(log: Path) -> list[float]:
    return [float(line) for line in log.read_text().splitlines()]


async def killed(
    place: dict[str, str], durability: str, log: Path, *, after_calls: int
) -> tuple[list[float], float, int]:
    """When the calls of a killed process had returned, when it was killed, and how many calls were stored."""
    worker = start(place, "steady", durability, log)
    try:
        async with opened(place) as counters:

            async def enough() -> Any:
                return await calls(counters) >= after_calls

            await eventually(enough, timeout=60)
            worker.kill()
            at = time.monotonic()
            await asyncio.to_thread(worker.wait)
            return read(log), at, await calls(counters)
    finally:
        worker.kill()
        worker.wait()


@PLACES
async def test_sync_loses_no_call_that_has_returned(place: dict[str, str], tmp_path: Path) -> None:
    returned, _, stored = await killed(place, "sync", tmp_path / "log", after_calls=100)
    assert len(returned) <= stored <= len(returned) + 1


@PLACES
async def test_batched_loses_at_most_the_last_interval_and_the_flush_in_flight(
    place: dict[str, str], tmp_path: Path
) -> None:
    returned, at, stored = await killed(place, "batched", tmp_path / "log", after_calls=1500)
    safe = [moment for moment in returned if moment < at - INTERVAL_SECONDS - BUSY_MACHINE_SECONDS]
    assert len(safe) <= stored <= len(returned) + 1
