"""Health that nobody refreshes by hand: between replicas, between processes, and with its end."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.counters import InMemoryModelCounters, ModelHealth, Permit, SqliteModelCounters
from deerflow_replica.counters._circuit import Answer, Circuit, Opening, Policy, answered, leased, opened, released
from deerflow_replica.counters._symptoms import seconds_to_look_at
from waiting import eventually

pytestmark = pytest.mark.anyio

POLICY = Policy(open_seconds=10, max_open_seconds=25, lease_seconds=100)


def health_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "deerflow-replica-health"]


async def test_an_opening_travels_by_itself_and_so_does_the_recovery(tmp_path: Path) -> None:
    path = tmp_path / "counters.db"
    settings: Any = {"refresh_seconds": 0.05, "failure_threshold": 2, "jitter": 0}
    async with SqliteModelCounters(path) as one, SqliteModelCounters(path) as two:
        here, there = ModelHealth(one, **settings), ModelHealth(two, **settings)
        one.record("m", "failure", error_type="rate_limit", retry_after_seconds=0.3)
        await eventually(lambda: there.state("m").state != "closed")
        permit = await eventually(lambda: there.acquire("m"))
        assert permit.probe
        await there.release(permit, "success")
        await eventually(lambda: here.state("m").state == "closed")
    await eventually(lambda: not health_threads())


async def test_health_made_before_the_counters_open_works_and_ends_with_them(tmp_path: Path) -> None:
    counters = SqliteModelCounters(tmp_path / "counters.db")
    health = ModelHealth(counters, refresh_seconds=0.05)
    counters.record("m", "failure", error_type="auth")
    assert health.state("m").state == "open"
    assert (await health.choose(["m", "n"])).model_name == "n"
    await counters.setup()
    async with SqliteModelCounters(tmp_path / "counters.db") as sibling:
        other = ModelHealth(sibling, refresh_seconds=0.05)
        await eventually(lambda: other.state("m").reason == "auth")
    await counters.close()
    assert (await health.choose(["m", "n"])).model_name == "n"
    await health.refresh()
    await health.release(Permit("m", probe=True, token="lost"), "success")  # noqa: S106  # a lease, not a secret
    assert (await asyncio.to_thread(health.choose_sync, ["m"])).forced
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("deerflow-replica")]


async def test_counters_do_not_keep_their_health(tmp_path: Path) -> None:
    async with SqliteModelCounters(tmp_path / "counters.db") as counters:
        health = ModelHealth(counters, refresh_seconds=0.02)
        gone = weakref.ref(health)
        del health

        def collected() -> bool:
            gc.collect()
            return gone() is None and not health_threads()

        await eventually(collected)
        counters.record("m", "failure")


async def test_counters_without_a_server_need_no_thread_for_their_health() -> None:
    async with InMemoryModelCounters() as counters:
        health = ModelHealth(counters, min_calls=4, refresh_seconds=0.01)
        for _ in range(2):
            counters.record("m", "failure")
            counters.record("m", "success")

        async def ill() -> bool:
            return await health.acquire("m") is None

        await eventually(ill)
        assert not health_threads()


async def test_a_follower_that_raises_costs_no_count(caplog: pytest.LogCaptureFixture) -> None:
    counters = InMemoryModelCounters()

    def broken(*_: object) -> None:
        raise LookupError("of the follower")

    counters._follow(broken)
    counters.record("m", "success")
    assert counters.local_totals()["m"].call_count == 1
    assert "of the follower" in caplog.text


async def test_many_threads_hear_and_ask() -> None:
    counters = InMemoryModelCounters()
    health = ModelHealth(counters, failure_threshold=3, open_seconds=0.001, max_open_seconds=0.001, jitter=0)

    def work() -> None:
        for _ in range(300):
            permit = health.choose_sync(["m", "n"])
            counters.record(permit.model_name, "failure")
            health.release_sync(permit, "failure")

    await asyncio.gather(*[asyncio.to_thread(work) for _ in range(8)])
    totals = counters.local_totals()
    assert sum(total.failure_count for total in totals.values()) == 2400
    assert set(totals) == {"m", "n"}


# The rules


def opening(at: float, seconds: float | None = None) -> Opening:
    return Opening("why", at, seconds, 1.0)


def test_each_opening_in_a_row_is_longer_up_to_the_most() -> None:
    circuit, at, found = Circuit(), 0.5, []
    for _ in range(4):
        circuit = opened(circuit, opening(at), POLICY)
        assert circuit.open_until is not None
        found.append(circuit.open_until - at)
        at = circuit.open_until
    assert found == [10, 20, 25, 25]


def test_an_opening_told_twice_is_one() -> None:
    once = opened(Circuit(), opening(5), POLICY)
    assert opened(once, opening(5), POLICY) == once
    assert opened(Circuit(closed_at=6), opening(5), POLICY) == Circuit(closed_at=6)


def test_a_circuit_that_opens_again_has_no_lease() -> None:
    held = leased(opened(Circuit(), opening(5), POLICY), "a", 15, POLICY)
    again = opened(held, opening(20), POLICY)
    assert (again.lease, again.opened_count, again.open_until) == (None, 2, 40)
    assert leased(again, "b", 40, POLICY).lease == "b"
    assert released(again, "a", "success", opening(21), POLICY) == again


@pytest.mark.parametrize(
    ("circuit", "now", "seconds"),
    [
        (Circuit(), 1000.0, 60),
        (Circuit(open_until=1.0), 1000.0, None),
        (Circuit(closed_at=1005.0), 1021.9, None),
        (Circuit(closed_at=1005.0), 1022.0, 10),
        (Circuit(closed_at=1005.0), 1050.0, 38),
        (Circuit(closed_at=1005.0), 2000.0, 60),
    ],
)
def test_of_what_came_before_a_circuit_closed_nothing_counts(
    circuit: Circuit, now: float, seconds: float | None
) -> None:
    assert seconds_to_look_at(circuit, now, 60) == seconds


def test_an_answer_closes_from_its_end_what_it_began_after() -> None:
    half_open = opened(Circuit(), opening(5), POLICY)
    assert half_open.open_until == 15
    assert answered(half_open, 40, Answer(14.9, 20)) == half_open
    closed = answered(half_open, 40, Answer(15, 20))
    assert closed == Circuit(closed_at=20)
    assert opened(closed, opening(21), POLICY).opened_count == 1, "seen after it, and told after it"
    assert answered(closed, 50, Answer(40, 45)) == closed
    held = leased(half_open, "a", 16, POLICY)
    assert answered(held, 20, Answer(17, 19)) == held
    assert answered(held, 116, Answer(17, 19)) == Circuit(closed_at=19), "who had the lease is gone"


def test_a_lease_is_one_caller_s_until_it_ends() -> None:
    half_open = opened(Circuit(), opening(5), POLICY)
    assert leased(half_open, "a", 14, POLICY) == half_open
    held = leased(half_open, "a", 15, POLICY)
    assert leased(held, "b", 114, POLICY) == held
    assert leased(held, "b", 115, POLICY).lease == "b"
    assert released(held, "a", "success", opening(115), POLICY) == held
    assert released(held, "b", "success", opening(16), POLICY) == held
    assert released(held, "a", "success", opening(16), POLICY) == Circuit(closed_at=16)
    assert released(held, "a", "abandoned", opening(16), POLICY) == half_open
