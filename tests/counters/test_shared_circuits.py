"""Circuits and the store they are shared in: what is told, when, and what happens while it is away."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.config import AppConfig
from deerflow_replica.counters import (
    InMemoryModelCounters,
    ModelCounters,
    ModelHealth,
    Permit,
    SqliteModelCounters,
    open_model_counters,
)
from deerflow_replica.counters._circuit import Circuit, StoredCircuit
from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.replica import open_replica
from waiting import eventually

pytestmark = pytest.mark.anyio


class OddStore(SqliteModelCounters):
    """One that can be away or read-only, whose clock may be ahead, and that counts what is written to it."""

    is_away = is_read_only = False
    ahead_seconds = 0.0
    swaps = reads = 0

    def __init__(self, *arguments: Any, **common: Any) -> None:
        super().__init__(*arguments, **common)
        self.swapping, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()

    async def _read_circuits(self) -> tuple[float, dict[str, StoredCircuit]]:
        self.reads += 1
        if self.is_away:
            raise StoreUnavailableError("away")
        now, circuits = await super()._read_circuits()
        return now + self.ahead_seconds, circuits

    async def _swap_circuit(self, model_name: str, version: int, circuit: Circuit) -> bool:
        if self.is_away or self.is_read_only:
            raise StoreUnavailableError("away")
        self.swaps += 1
        self.swapping.set()
        await asyncio.to_thread(self.goes_on.wait)
        return await super()._swap_circuit(model_name, version, circuit)


def health_of(counters: ModelCounters, **settings: Any) -> ModelHealth:
    """Refreshed by hand."""
    return ModelHealth(counters, **{"jitter": 0, "refresh_seconds": 3600, **settings})


async def half_open(health: ModelHealth, counters: ModelCounters) -> None:
    counters.record("m", "failure", error_type="rate_limit", retry_after_seconds=0.01)
    await health.refresh()
    await eventually(lambda: health.state("m").state == "half_open")


async def probe(health: ModelHealth) -> Permit:
    permit = await health.acquire("m")
    assert permit is not None
    assert permit.probe
    return permit


@pytest.mark.parametrize(("outcome", "state"), [("success", "closed"), ("abandoned", "half_open"), ("failure", "open")])
async def test_a_probe_that_ends_while_the_store_is_away_is_told_later(
    tmp_path: Path, outcome: Any, state: str
) -> None:
    path = tmp_path / "counters.db"
    async with OddStore(path) as counters, SqliteModelCounters(path) as sibling:
        here, there = health_of(counters), health_of(sibling)
        await half_open(here, counters)
        permit = await probe(here)
        counters.is_away = True
        await here.release(permit, outcome)
        assert here.state("m").state == state
        await here.refresh()
        await there.refresh()
        assert await there.acquire("m") is None, "the store cannot know yet"
        counters.is_away = False
        await here.refresh()
        await there.refresh()
        assert here.state("m").state == there.state("m").state == state
        if outcome == "abandoned":
            assert (await probe(there)).token != permit.token


async def test_a_store_that_is_away_is_asked_by_refreshing_only_and_decides_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    """Whoever asks for leave would wait for it each time."""
    path = tmp_path / "counters.db"
    async with OddStore(path) as counters, SqliteModelCounters(path) as sibling:
        here, there = health_of(counters), health_of(sibling)
        await half_open(here, counters)
        counters.is_away = True
        await here.refresh()
        counters.reads = 0
        alone = await probe(here)
        await here.release(alone, "abandoned")
        assert counters.reads == 0
        counters.is_away = False
        await here.refresh()
        await there.refresh()
        await probe(there)
        assert await here.acquire("m") is None, "in the whole fleet one caller has leave"


async def test_health_that_is_closed_hears_nothing_more(tmp_path: Path) -> None:
    async with SqliteModelCounters(tmp_path / "counters.db") as counters:
        health = health_of(counters)
        await health.close()
        counters.record("m", "failure", error_type="auth")
        assert health.state("m").state == "closed"


@pytest.mark.parametrize("ahead_seconds", [0.0, 1000.0])
@pytest.mark.parametrize("how", ["is_away", "is_read_only"])
async def test_an_answer_that_could_not_be_told_is_told_later(tmp_path: Path, how: str, ahead_seconds: float) -> None:
    path = tmp_path / "counters.db"
    async with OddStore(path) as counters, SqliteModelCounters(path) as sibling:
        here, there = health_of(counters), health_of(sibling)
        counters.ahead_seconds = ahead_seconds
        setattr(counters, how, True)
        await half_open(here, counters)
        counters.record("m", "success", duration_seconds=0)
        await here.refresh()
        assert here.state("m").state == "closed"
        setattr(counters, how, False)
        await here.refresh()
        await there.refresh()
        assert here.state("m").state == there.state("m").state == "closed"


async def test_an_answer_that_was_not_told_yet_still_counts_here(tmp_path: Path) -> None:
    async with OddStore(tmp_path / "counters.db") as counters:
        health = health_of(counters)
        await half_open(health, counters)
        health._refresher.stop()  # it would tell the answer at once
        await asyncio.to_thread(health._refresher.join)
        counters.swapping.clear()
        counters.goes_on.clear()
        counters.record("n", "failure", error_type="auth")
        refreshing = asyncio.ensure_future(health.refresh())
        await asyncio.to_thread(counters.swapping.wait)
        counters.record("m", "success", duration_seconds=0)
        counters.goes_on.set()
        await refreshing
        assert (health.state("m").state, health.state("n").state) == ("closed", "open")


async def test_an_answer_is_told_before_health_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "counters.db"
    async with SqliteModelCounters(path) as counters, SqliteModelCounters(path) as sibling:
        here, there = health_of(counters), health_of(sibling)
        await half_open(here, counters)
        counters.record("m", "success", duration_seconds=0)
        await here.close()
        await there.refresh()
        assert there.state("m").state == "closed"


async def test_an_opening_that_could_not_be_told_is_told_later_once(tmp_path: Path) -> None:
    path = tmp_path / "counters.db"
    async with OddStore(path) as counters, SqliteModelCounters(path) as sibling:
        here, there = health_of(counters), health_of(sibling)
        await here.refresh()
        counters.is_away = True
        for name in ("m", "n"):
            counters.record(name, "failure", error_type="auth")
        await here.refresh()
        counters.is_away = False
        for _ in range(2):
            await here.refresh()
        assert counters.swaps == 2
        await there.refresh()
        assert [there.state(name).opened_count for name in there.known_models()] == [1, 1]


async def test_that_a_model_refuses_again_is_no_news() -> None:
    async with InMemoryModelCounters() as counters:
        health = health_of(counters)
        ends = []
        for retry_after in (20, 50):
            counters.record("m", "failure", error_type="rate_limit", retry_after_seconds=retry_after)
            ends.append(health.state("m").open_until or 0)
            assert health._news.is_set() == (retry_after == 20)
            health._news.clear()
        assert ends[1] - ends[0] > 25


async def test_many_refusals_at_once_are_one_thing_to_tell(tmp_path: Path) -> None:
    async with OddStore(tmp_path / "counters.db") as counters:
        health = health_of(counters)
        for seconds in range(200):
            counters.record("m", "failure", error_type="rate_limit", retry_after_seconds=100 + seconds)
        assert [len(openings) for openings in health._circuits._openings.values()] == [1]
        await health.refresh()
        assert counters.swaps == 1
        until = health.state("m").open_until
        assert until is not None
        assert 205 < until - time.time() < 300
        assert health.state("m").opened_count == 1


async def test_a_refresh_waits_for_the_one_that_tells_already(tmp_path: Path) -> None:
    async with OddStore(tmp_path / "counters.db") as counters:
        health = health_of(counters)
        counters.goes_on.clear()
        counters.record("m", "failure", error_type="auth")
        first = asyncio.ensure_future(health.refresh())
        await asyncio.to_thread(counters.swapping.wait)
        second = asyncio.ensure_future(health.refresh())
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done
        counters.goes_on.set()
        await asyncio.gather(first, second)
        assert health.state("m").state == "open"


@pytest.mark.parametrize("ahead_seconds", [3600.0, -3600.0])
async def test_what_was_seen_before_the_store_s_time_was_known_is_told_in_it(
    tmp_path: Path, ahead_seconds: float
) -> None:
    async with OddStore(tmp_path / "counters.db") as counters:
        counters.ahead_seconds = ahead_seconds
        health = health_of(counters, open_seconds=250)
        for _ in range(5):
            counters.record("m", "failure", error_type="transient")
        await health.refresh()
        state = health.state("m")
        assert state.open_until is not None
        assert 150 < state.open_until - time.time() - ahead_seconds <= 250
        assert (state.state, state.opened_count) == ("open", 1)


async def test_closing_tells_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "counters.db"
    async with SqliteModelCounters(path) as counters:
        health = health_of(counters)
        await half_open(health, counters)
        health.release_soon(await probe(health), "success")
        await health.close()
        other = health_of(counters)
        await other.refresh()
        assert other.state("m").state == "closed"


async def test_health_of_counters_that_are_closed_meanwhile_goes_by_what_it_knows(tmp_path: Path) -> None:
    async with SqliteModelCounters(tmp_path / "counters.db") as counters:
        health = health_of(counters)
        await half_open(health, counters)
        permit = await probe(health)
    await health.release(permit, "success")
    assert health.state("m").state == "closed"
    assert await health.choose(["m"]) == Permit("m")


async def test_a_new_replica_knows_at_once_which_models_are_ill(tmp_path: Path) -> None:
    config = AppConfig.from_mapping({"database": {"backend": "sqlite", "sqlite_dir": str(tmp_path)}})
    async with open_model_counters(config) as counters:
        health = health_of(counters)
        counters.record("m", "failure", error_type="auth")
        await health.refresh()
    async with open_replica(config) as replica:
        assert replica.health.state("m").reason == "auth"
