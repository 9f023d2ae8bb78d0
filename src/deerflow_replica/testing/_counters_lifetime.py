"""Windows of model counters, and how they are set up, flushed from anywhere, and closed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ..counters.base import ModelCounters
from ..errors import StoreUnavailableError
from ._counters_common import VOTER, Build, CountersFixtures


class WindowContract(CountersFixtures):
    async def test_a_window_has_what_was_recorded_in_it(self, counters: ModelCounters) -> None:
        counters.record("m", "success", duration_seconds=0.5)
        counters.record("m", "failure", error_type="rate_limit")
        counters.record("m", "cancelled")
        for _ in range(2):
            window = (await counters.window(30))["m"]
            assert (window.call_count, window.success_count, window.failure_count, window.cancelled_count) == (
                2,
                1,
                1,
                1,
            )
            assert (window.seconds, window.failure_rate, window.latency.count) == (30, 0.5, 1)
            assert window.failures_by_kind == {"rate_limit": 1}
            await counters.flush()

    @pytest.mark.parametrize("seconds", [9.9, 0, -60, 901, float("nan")])
    async def test_a_window_has_10_to_900_seconds(self, counters: ModelCounters, seconds: float) -> None:
        with pytest.raises(ValueError, match="window"):
            await counters.window(seconds)


class LifetimeContract(CountersFixtures):
    async def test_compaction_refuses_a_negative_age(self, counters: ModelCounters) -> None:
        with pytest.raises(ValueError, match="dead_after_seconds"):
            await counters.compact(dead_after_seconds=-1)

    async def test_any_thread_and_any_loop_may_flush(self, counters: ModelCounters) -> None:
        async def elsewhere() -> int:
            counters.record("m", "success")
            await counters.flush()
            return (await counters.totals())["m"].call_count

        counters.flush_sync()
        await asyncio.to_thread(counters.flush_sync)
        assert await asyncio.to_thread(asyncio.run, elsewhere()) == 1
        assert await elsewhere() == 2

    async def test_setup_and_close_may_be_repeated(self, build: Build) -> None:
        counters = build()
        counters.record("m", "success")
        for _ in range(2):
            await counters.setup()
        assert (await counters.totals())["m"].call_count == 1
        for _ in range(2):
            await counters.close()

    async def test_setup_from_several_loops_at_once_opens_once(self, build: Build) -> None:
        counters = build(flush_interval_seconds=3600)

        async def set_up() -> None:
            await asyncio.gather(counters.setup(), counters.setup())

        await asyncio.gather(*(asyncio.to_thread(asyncio.run, set_up()) for _ in range(4)))
        counters.record("m", "success")
        assert (await counters.totals())["m"].call_count == 1
        await asyncio.gather(counters.close(), counters.close())
        own = [thread.name for thread in threading.enumerate() if "deerflow-replica-counters" in thread.name]
        assert not own

    async def test_after_close_everything_raises(self, build: Build) -> None:
        async with build() as counters:
            counters.record("m", "success")
        for call in (counters.flush_sync, counters.local_totals, lambda: counters.record("m", "success")):
            with pytest.raises(StoreUnavailableError):
                call()
        for acall in (
            counters.setup,
            counters.flush,
            counters.totals,
            counters.window,
            counters.list_rows,
            counters.compact,
            lambda: counters.arecord("m", "success"),
            lambda: counters.increment("m", call_count=1),
            lambda: counters.add_feedback("m", "positive", **VOTER),
        ):
            with pytest.raises(StoreUnavailableError):
                await acall()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"durability": "maybe"},
            {"flush_interval_seconds": 0},
            {"flush_interval_seconds": float("nan")},
            {"flush_max_events": 0},
            {"max_models": 0},
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, build: Build, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            build(**wrong)
