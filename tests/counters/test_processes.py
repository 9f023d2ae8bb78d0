"""Several processes at once, and processes that are killed."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest

from counting_worker import (
    INTERVAL_SECONDS,
    KINDS,
    Place,
    build,
    count_from_threads,
    count_until_killed,
    kill,
    probe_over_and_over,
    said,
    start,
)
from deerflow_replica.counters import ModelCounters, ModelHealth
from waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.parametrize("kind", KINDS)]

BUSY_MACHINE_SECONDS = 10  # what a write may take, and its thread may wait for its turn, while other tests run


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    of = request.getfixturevalue
    if kind == "sqlite":
        return kind, {"path": str(tmp_path / "counters.db")}
    if kind == "redis":
        return kind, {"redis_url": of("redis_url"), "key_prefix": of("key_prefix")}
    if kind == "mongodb":
        return kind, {"uri": of("mongo_url"), "database": of("mongo_database")}
    return kind, {"dsn": of("postgres_dsn"), "schema": of("postgres_schema")}


async def calls(counters: ModelCounters) -> int:
    totals = (await counters.totals()).get("m")
    return totals.call_count if totals else 0


async def test_processes_and_threads_lose_nothing_while_others_compact(place: Place) -> None:
    each = 60 if place[0] == "mongodb" else 200  # FerretDB is slow
    workers = [start(count_from_threads, place, 4, each) for _ in range(3)]
    try:
        async with build(place) as counters:
            while any(worker.is_alive() for worker in workers):
                before = await calls(counters)
                await counters.compact(dead_after_seconds=0)
                assert await calls(counters) >= before
            assert [worker.exitcode for worker in workers] == [0, 0, 0]
            totals = (await counters.totals())["m"]
            counted = (totals.call_count, totals.input_tokens, totals.latency.sum_seconds)
            assert counted == (12 * each, 36 * each, 6.0 * each)
            await counters.compact(dead_after_seconds=0)
            assert (await counters.totals())["m"] == totals
    finally:
        kill(*workers)


async def test_no_two_processes_ever_hold_one_probe_together(place: Place, tmp_path: Path) -> None:
    async with build(place) as counters:
        health = ModelHealth(counters, open_seconds=0.001, max_open_seconds=0.001)
        counters.record("m", "failure", error_type="auth")
        await health.refresh()
    log = tmp_path / "held"
    processes = [start(probe_over_and_over, place, log, 0.7) for _ in range(2)]
    try:
        for process in processes:
            await asyncio.to_thread(process.join)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        kill(*processes)
    held = sorted(said(log, "held"))
    assert len(held) >= 3
    for (_, ended), (began, _) in pairwise(held):
        assert ended <= began, "two had the probe at one time"


async def test_sync_loses_no_call_that_has_returned(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = start(count_until_killed, place, "sync", log)
    try:
        await eventually(lambda: len(said(log, "returned")) >= 50, timeout=60)
    finally:
        kill(worker)
    returned = len(said(log, "returned"))
    async with build(place) as counters:
        assert returned <= await calls(counters) <= returned + 1


async def test_batched_loses_what_came_after_the_last_write_began(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = start(count_until_killed, place, "batched", log)
    try:
        await eventually(lambda: len(said(log, "written")) >= 3, timeout=60)
        written = said(log, "written")[-1][0]
        await eventually(lambda: said(log, "returned")[-1][0] > written, timeout=60)
    finally:
        kill(worker)
    ends = time.monotonic()
    begun, written = said(log, "writing")[-1][0], said(log, "written")[-1][0]
    async with build(place) as counters:
        assert await calls(counters) in (written, begun), "neither the last write that ended, nor one under way"
    begins = [at for _, at in said(log, "writing")]
    for earlier, later in pairwise([said(log, "returned")[0][1], *begins, ends]):
        assert later - earlier <= INTERVAL_SECONDS + BUSY_MACHINE_SECONDS, "more than an interval is lost"
