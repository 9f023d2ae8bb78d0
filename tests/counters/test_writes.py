"""Whoever waits for a write shares it; what could not be written is in the next one."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.counters import InMemoryModelCounters, SqliteModelCounters
from deerflow_replica.counters._ledger import Ledger, Snapshot
from deerflow_replica.counters._writes import Writes
from deerflow_replica.errors import StoreUnavailableError
from waiting import eventually

pytestmark = pytest.mark.anyio


class Store:
    """Takes snapshots; each write waits for `goes_on`, and fails while `is_away`."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.under_way = 0
        self.is_away = False
        self.goes_on = asyncio.Event()

    async def write(self, snapshot: Snapshot) -> None:
        self.under_way += 1
        assert self.under_way == 1, "two writes at a time"
        try:
            await self.goes_on.wait()
        finally:
            self.under_way -= 1
        self.calls += [row.counts["call_count"] for row in snapshot.rows if row.bucket == 0]
        if self.is_away:
            raise StoreUnavailableError("away")


class Fixture:
    def __init__(self) -> None:
        self.ledger = Ledger(max_models=9, flush_max_events=9)
        self.writes = Writes(self.ledger)
        self.store = Store()

    def call(self) -> None:
        self.ledger.record("m", "success", None, None, None)

    def waiting(self, *, everything: bool = False) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.writes.until(self.writes.wanted(), self.store.write, everything=everything))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_come_during_a_write_share_the_next_one() -> None:
    at = Fixture()
    waiting = []
    for _ in range(5):
        at.call()
        waiting.append(at.waiting())
        await settled()
    at.store.goes_on.set()
    await asyncio.gather(*waiting)
    assert at.store.calls == [1, 5]
    assert at.writes.missing == 0


async def test_those_who_wait_fail_together_and_who_comes_later_tries_anew() -> None:
    at = Fixture()
    at.store.is_away = True
    at.call()
    first = at.waiting()
    await settled()
    others = [at.waiting() for _ in range(5)]
    at.store.goes_on.set()
    outcomes = await asyncio.gather(first, *others, return_exceptions=True)
    assert all(isinstance(one, StoreUnavailableError) for one in outcomes)
    assert at.store.calls == [1, 1], "the first, and one for all the others"
    assert at.writes.missing == 1
    at.store.is_away = False
    await at.waiting()
    assert at.writes.missing == 0


async def test_a_cancelled_write_belongs_to_the_next_one() -> None:
    at = Fixture()
    at.call()
    waiting = at.waiting()
    await settled()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    at.store.goes_on.set()
    await at.waiting()
    assert at.store.calls == [1]


async def test_everything_is_written_also_where_nothing_changed() -> None:
    at = Fixture()
    at.store.goes_on.set()
    at.call()
    await at.waiting()
    at.writes.everything_at -= 100
    before = at.writes.everything_at
    await at.waiting()
    assert (at.store.calls, at.writes.everything_at) == ([1], before)
    await at.waiting(everything=True)
    assert at.store.calls == [1, 1]
    assert at.writes.everything_at > before + 99


async def test_counting_does_not_wait_for_a_write() -> None:
    at = Fixture()
    at.call()
    writing = at.waiting()
    await settled()
    assert at.store.under_way
    at.call()
    assert at.ledger.totals()["m"]["call_count"] == 2
    at.store.goes_on.set()
    await writing
    assert at.writes.missing == 1


class Gated(SqliteModelCounters):
    def __init__(self, *arguments: Any, **common: Any) -> None:
        super().__init__(*arguments, **common)
        self.writing, self.goes_on = threading.Event(), threading.Event()

    async def _write(self, snapshot: Snapshot) -> None:
        self.writing.set()
        await asyncio.to_thread(self.goes_on.wait)
        await super()._write(snapshot)


async def test_enough_events_during_a_write_start_the_next_one(tmp_path: Path) -> None:
    async with Gated(tmp_path / "counters.db", flush_interval_seconds=3600, flush_max_events=5) as counters:
        for _ in range(5):
            counters.record("m", "success")
        await asyncio.to_thread(counters.writing.wait)
        for _ in range(5):
            counters.record("m", "success")
        counters.goes_on.set()
        await eventually(lambda: counters._writes.missing == 0)


async def test_a_cancelled_arecord_does_not_cancel_its_write(tmp_path: Path) -> None:
    async with Gated(tmp_path / "counters.db", durability="sync", flush_interval_seconds=3600) as counters:
        waiting = asyncio.ensure_future(counters.arecord("m", "success"))
        await asyncio.to_thread(counters.writing.wait)
        waiting.cancel()
        await asyncio.wait([waiting])
        counters.goes_on.set()
        await eventually(lambda: counters._writes.missing == 0)


async def test_counters_of_one_process_have_nothing_to_write() -> None:
    async with InMemoryModelCounters(durability="sync") as counters:
        await counters.arecord("m", "success")
        await counters.flush()
        assert counters.local_totals() == await counters.totals()
