"""What the health of models must do on every `ModelCounters`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest

from ..counters._circuit import Circuit, StoredCircuit
from ..counters.base import ModelCounters
from ..counters.health import ModelHealth
from ..counters.values import CircuitState, Permit
from ._counters_common import Build, CountersFixtures


class Pair(Protocol):
    """Two replicas' counters and health, made with these keywords of `ModelHealth`."""

    async def __call__(self, **health: Any) -> tuple[Seat, Seat]: ...


class Seat:
    """One replica. Nothing is refreshed by itself within a test, unless it says so."""

    def __init__(self, counters: ModelCounters, **health: Any) -> None:
        self.counters = counters
        self.health = ModelHealth(counters, **{"jitter": 0.0, "refresh_seconds": 3600.0, **health})

    def fails(self, times: int, kind: str = "transient", **more: Any) -> None:
        for _ in range(times):
            self.counters.record("m", "failure", error_type=kind, **more)

    def answers(self, times: int = 1) -> None:
        for _ in range(times):
            self.counters.record("m", "success")

    @property
    def state(self) -> str:
        return self.health.state("m").state


class HealthContract(CountersFixtures):
    """Takes the fixture `pair`: two replicas that share what they count, or are one."""

    @pytest.fixture
    async def pair(self, build: Build) -> AsyncIterator[Pair]:
        async with AsyncExitStack() as stack:

            async def made(**health: Any) -> tuple[Seat, Seat]:
                counters = await stack.enter_async_context(build(flush_interval_seconds=3600))
                second = counters
                if counters._is_shared:
                    second = await stack.enter_async_context(build(flush_interval_seconds=3600))
                return Seat(counters, **health), Seat(second, **health)

            yield made

    # Opening

    async def test_failures_in_a_row_open_here_at_once_and_then_everywhere(self, pair: Pair) -> None:
        here, there = await pair(failure_threshold=3)
        began = time.time()
        here.fails(2)
        here.answers()
        here.fails(2, "unknown")
        assert (here.state, here.health.state("m").consecutive_failures) == ("closed", 2)
        here.fails(1)
        assert here.state == "open"
        assert await here.health.acquire("m") is None
        await here.health.refresh()
        await there.health.refresh()
        state = there.health.state("m")
        assert (state.state, state.reason, state.opened_count) == ("open", "consecutive_failures", 1)
        assert _is_open_for(state, began, 30)
        assert await there.health.acquire("m") is None
        assert await there.health.acquire("other") == Permit("other")

    async def test_an_answer_that_does_not_parse_ends_the_row_and_a_cancellation_does_not(self, pair: Pair) -> None:
        here, _ = await pair(failure_threshold=3)
        here.fails(2)
        here.counters.record("m", "parse_error")
        assert here.health.state("m").consecutive_failures == 0
        here.fails(2)
        here.counters.record("m", "cancelled")
        here.counters.record("m", "failure", error_type="request")
        assert (here.state, here.health.state("m").consecutive_failures) == ("closed", 2)
        here.fails(1)
        assert here.state == "open"

    async def test_what_is_no_illness_opens_nothing(self, pair: Pair) -> None:
        here, _ = await pair(failure_threshold=1, min_calls=1)
        here.fails(50, "request")
        outcomes: tuple[Any, ...] = ("cancelled", "control_flow", "short_circuit", "parse_error")
        for outcome in outcomes:
            here.counters.record("m", outcome)
        await here.health.refresh()
        assert here.state == "closed"

    @pytest.mark.parametrize(
        ("kind", "retry_after", "seconds"),
        [
            ("rate_limit", 77.0, 77),
            ("rate_limit", None, 30),
            ("rate_limit", "soon", 30),
            ("rate_limit", -1.0, 30),
            ("auth", None, 200),
        ],
    )
    async def test_one_refusal_opens(self, pair: Pair, kind: str, retry_after: Any, seconds: float) -> None:
        here, there = await pair(max_open_seconds=200)
        began = time.time()
        here.fails(1, kind, retry_after_seconds=retry_after)
        await here.health.refresh()
        await there.health.refresh()
        state = there.health.state("m")
        assert (state.state, state.reason) == ("open", kind)
        assert _is_open_for(state, began, seconds)

    async def test_a_second_opening_extends_and_never_shortens(self, pair: Pair) -> None:
        here, there = await pair()
        began = time.time()
        here.fails(1, "rate_limit", retry_after_seconds=100)
        await here.health.refresh()
        there.fails(1, "rate_limit", retry_after_seconds=5)
        await there.health.refresh()
        first = there.health.state("m")
        there.fails(1, "rate_limit", retry_after_seconds=200)
        await there.health.refresh()
        await here.health.refresh()
        last = here.health.state("m")
        assert _is_open_for(first, began, 100)
        assert _is_open_for(last, began, 200)
        assert last.opened_count == 1

    async def test_the_share_of_failures_is_the_fleet_s(self, pair: Pair) -> None:
        here, there = await pair(min_calls=10)
        for seat in (here, there):
            for _ in range(3):
                seat.fails(1)
                seat.answers()
        assert (here.state, there.state) == ("closed", "closed")
        await there.counters.flush()
        await here.health.refresh()
        assert here.health.state("m").reason == "failure_rate"
        await there.health.refresh()
        assert there.state == "open"

    async def test_refused_requests_are_calls_and_no_failures_of_the_model(self, pair: Pair) -> None:
        here, _ = await pair(min_calls=10, failure_threshold=9)
        here.fails(16, "request")
        here.fails(4)
        await here.health.refresh()
        assert here.state == "closed"

    async def test_a_few_calls_are_no_share(self, pair: Pair) -> None:
        here, _ = await pair(min_calls=10)
        here.fails(4)
        await here.health.refresh()
        assert here.state == "closed"

    async def test_jitter_only_lengthens(self, pair: Pair) -> None:
        here, _ = await pair(jitter=1.0)
        began, found = time.time(), []
        for number in range(20):
            here.counters.record(f"m{number}", "failure", error_type="rate_limit", retry_after_seconds=100)
            state = here.health.state(f"m{number}")
            assert _is_open_for(state, began, 100, at_most=200)
            found.append((state.open_until or 0.0) - time.time())
        assert max(found) - min(found) > 5

    # Probes

    async def test_one_caller_in_the_fleet_gets_the_probe(self, pair: Pair) -> None:
        here, there = await self.half_open(pair)
        permits = await asyncio.gather(*[seat.health.acquire("m") for seat in (here, there) * 10])
        assert [permit.probe for permit in permits if permit is not None] == [True]

    async def test_a_circuit_is_changed_only_by_who_read_it_as_it_is(self, counters: ModelCounters) -> None:
        swapped = [
            await counters._swap_circuit("m", version, Circuit(reason))
            for version, reason in ((0, "first"), (0, "late"), (1, "second"), (1, "late"), (3, "early"))
        ]
        assert swapped == [True, False, True, False, False]
        _, circuits = await counters._read_circuits()
        assert circuits == {"m": StoredCircuit(2, Circuit("second"))}

    async def test_a_success_closes_for_everyone(self, pair: Pair) -> None:
        here, there = await self.half_open(pair, failure_threshold=2)
        here.fails(1)
        permit = await here.health.acquire("m")
        assert permit is not None
        assert permit.probe
        assert await there.health.acquire("m") is None
        await here.health.release(permit, "success")
        assert here.state == "closed"
        assert await there.health.acquire("m") == Permit("m")
        here.fails(1)
        assert here.state == "closed", "failures from before the closing still count"

    async def test_a_failed_probe_opens_longer(self, pair: Pair) -> None:
        here, there = await self.half_open(pair, open_seconds=40, max_open_seconds=100)
        permit = await here.health.acquire("m")
        assert permit is not None
        began = time.time()
        await here.health.release(permit, "failure")
        assert await there.health.acquire("m") is None
        for seat in (here, there):
            state = seat.health.state("m")
            assert (state.state, state.opened_count) == ("open", 2)
            assert _is_open_for(state, began, 80)

    async def test_a_probe_that_is_counted_and_released_is_one_opening(self, pair: Pair) -> None:
        here, there = await self.half_open(pair, open_seconds=40)
        permit = await here.health.acquire("m")
        assert permit is not None
        here.fails(1, "rate_limit")
        await here.health.release(permit, "failure")
        await here.health.refresh()
        await there.health.refresh()
        assert there.health.state("m").opened_count == 2

    async def test_an_abandoned_probe_is_free_at_once(self, pair: Pair) -> None:
        here, there = await self.half_open(pair)
        permit = await here.health.acquire("m")
        assert permit is not None
        await here.health.release(permit, "abandoned")
        permit = await there.health.acquire("m")
        assert permit is not None
        assert permit.probe

    async def test_a_lease_ends_and_its_late_release_is_ignored(self, pair: Pair) -> None:
        here, there = await self.half_open(pair, lease_seconds=0.05)
        lost = await here.health.acquire("m")
        assert lost is not None
        held = await until(lambda: there.health.acquire("m"))
        assert held.probe
        await here.health.release(lost, "success")
        await here.health.release(lost, "failure")
        await here.health.refresh()
        assert here.health.state("m").opened_count == 1
        assert here.state == "half_open"

    async def test_an_answer_to_a_call_without_leave_closes_it_too(self, pair: Pair) -> None:
        """Where no call is routed nobody asks for leave, and a circuit would be half open for good."""
        here, there = await self.half_open(pair)
        here.counters.record("m", "success", duration_seconds=3600)
        assert here.state == "half_open", "this call began before"
        here.counters.record("m", "success", duration_seconds=0)
        assert (here.state, here.health.state("m").opened_count) == ("closed", 0)
        await here.health.refresh()
        await there.health.refresh()
        assert here.state == there.state == "closed"

    async def test_an_answer_beside_a_probe_closes_nothing(self, pair: Pair) -> None:
        here, there = await self.half_open(pair)
        assert await here.health.acquire("m") is not None
        for seat in (there, here):
            seat.counters.record("m", "success", duration_seconds=0)
            await seat.health.refresh()
            assert seat.state == "half_open"

    async def test_an_answer_closes_nothing_that_opened_again_meanwhile(self, pair: Pair) -> None:
        here, there = await self.half_open(pair)
        there.fails(1, "rate_limit", retry_after_seconds=50)
        await there.health.refresh()
        here.counters.record("m", "success", duration_seconds=0)
        await here.health.refresh()
        await there.health.refresh()
        assert here.state == there.state == "open"

    async def test_a_cancelled_caller_keeps_no_lease(self, pair: Pair) -> None:
        here, there = await self.half_open(pair)
        asking = [asyncio.ensure_future(here.health.acquire("m")) for _ in range(5)]
        await asyncio.sleep(0)
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

        async def given() -> Permit | None:
            await here.health.refresh()
            return await there.health.acquire("m")

        assert (await until(given)).probe

    async def test_without_a_loop_it_is_the_same(self, pair: Pair) -> None:
        here, there = await self.half_open(pair)

        def work() -> None:
            permit = here.health.choose_sync(["m"])
            assert permit.probe
            assert there.health.acquire_sync("m") is None
            here.health.release_sync(permit, "success")
            there.health.refresh_sync()

        await asyncio.to_thread(work)
        assert there.state == "closed"

    # Choosing

    async def test_the_first_that_is_well_is_chosen_and_the_last_is_never_lost(self, pair: Pair) -> None:
        here, _ = await pair()
        for name, seconds in (("m", 50), ("n", 20)):
            here.counters.record(name, "failure", error_type="rate_limit", retry_after_seconds=seconds)
        assert (await here.health.choose(["m", "n", "o"])) == Permit("o")
        assert (await here.health.choose(["m", "n"])) == Permit("n", forced=True)
        assert (await here.health.choose(iter(["m"]))) == Permit("m", forced=True)
        with pytest.raises(ValueError, match="at least one"):
            await here.health.choose([])

    async def test_a_half_open_model_goes_first_to_one_caller(self, pair: Pair) -> None:
        here, there = await self.half_open(pair)
        permits = [await seat.health.choose(["m", "n"]) for seat in (here, there)]
        assert [(permit.model_name, permit.probe) for permit in permits] == [("m", True), ("n", False)]

    async def test_other_ways_to_release_are_refused(self, pair: Pair) -> None:
        here, _ = await pair()
        with pytest.raises(ValueError, match="released"):
            await here.health.release(Permit("m"), "lost")  # type: ignore[arg-type]  # that it is refused is the point

    @pytest.mark.parametrize(
        "wrong",
        [
            {"failure_threshold": 0},
            {"failure_rate": 0},
            {"failure_rate": 1.1},
            {"min_calls": 0},
            {"window_seconds": 9},
            {"open_seconds": 0},
            {"max_open_seconds": float("inf")},
            {"jitter": -0.1},
            {"lease_seconds": float("nan")},
            {"refresh_seconds": 0},
        ],
    )
    async def test_health_settings_that_make_no_sense_are_refused(self, pair: Pair, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            await pair(**wrong)

    async def half_open(self, pair: Pair, **health: Any) -> tuple[Seat, Seat]:
        """Two replicas, one of which knows that the model's circuit is half open; the other finds out by asking."""
        here, there = await pair(**health)
        there.fails(1, "rate_limit", retry_after_seconds=0.01)
        await there.health.refresh()
        await here.health.refresh()
        await until(lambda: _is(here.state == there.state == "half_open"))
        return here, there


def _is_open_for(state: CircuitState, began: float, seconds: float, *, at_most: float | None = None) -> bool:
    """Whether it opened for so long at some time between then and now."""
    assert state.open_until is not None
    return began + seconds - 1 < state.open_until < time.time() + (at_most or seconds) + 1


async def _is(fact: bool) -> bool:
    return fact


async def until(check: Callable[[], Awaitable[Any]], *, within_seconds: float = 60.0) -> Any:
    async with asyncio.timeout(within_seconds):
        while not (found := await check()):  # noqa: ASYNC110  # what changes is a clock, maybe another process's
            await asyncio.sleep(0.01)
    return found
