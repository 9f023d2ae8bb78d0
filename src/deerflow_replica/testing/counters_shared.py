"""What every `ModelCounters` that replicas share must do. Subclass it and give it yours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from ..counters._ledger import BUCKET_SECONDS, Row, Snapshot
from ..counters.base import ModelCounters
from ._counters_common import VOTER, Build, numbers
from .counters import ModelCountersContract


class SharedModelCountersContract(ModelCountersContract):
    """`ModelCountersContract` and what takes two: all that one test builds belongs to one place, empty at first."""

    @pytest.fixture
    async def sibling(self, build: Build) -> AsyncIterator[ModelCounters]:
        """Another replica in the same place."""
        async with build(flush_interval_seconds=3600) as counters:
            yield counters

    async def test_a_vote_is_there_for_everyone_when_it_returns(
        self, counters: ModelCounters, sibling: ModelCounters
    ) -> None:
        await asyncio.gather(*[replica.add_feedback("m", "positive", **VOTER) for replica in (counters, sibling) * 5])
        assert (await sibling.totals())["m"].positive_feedback_count == 1
        assert await sibling.totals() == await counters.totals()

    async def test_a_window_is_the_fleet_s(self, counters: ModelCounters, sibling: ModelCounters) -> None:
        counters.record("m", "success")
        sibling.record("m", "failure")
        await sibling.flush()
        window = (await counters.window())["m"]
        assert (window.call_count, window.failure_rate) == (2, 0.5)

    async def test_a_stored_call_leaves_a_window_up_to_10_seconds_late(
        self, counters: ModelCounters, sibling: ModelCounters
    ) -> None:
        """One of a clock that is up to a minute fast is in it, too; one of a clock that is wrong never."""
        ages = (-30, -5, 0, 1, 2, 5, 6, 7, 89, 90)
        found: dict[int, set[int]] = {}
        bucket = -1
        while bucket != int(time.time()) // BUCKET_SECONDS:  # unless one ends meanwhile
            bucket = int(time.time()) // BUCKET_SECONDS
            rows = tuple(Row(bucket - age, f"{age} {bucket}", {"call_count": 1}) for age in ages)
            await sibling._write(Snapshot(bucket, 1, rows, {}))
            for seconds in (10, 60, 900):
                names = [name for name in await counters.window(seconds) if name.endswith(str(bucket))]
                found[seconds] = {int(name.split()[0]) for name in names}
        assert found == {
            10: {-5, 0, 1},
            60: {-5, 0, 1, 2, 5, 6},
            900: {-5, 0, 1, 2, 5, 6, 7, 89, 90},
        }

    async def test_writing_again_counts_nothing_twice(self, counters: ModelCounters, sibling: ModelCounters) -> None:
        for number in range(1, 4):
            counters.record("m", "success", duration_seconds=0.5)
            for _ in range(3):
                await counters.flush()
                assert (await sibling.totals())["m"].call_count == number
                assert await counters.totals() == await sibling.totals()

    async def test_a_write_that_comes_late_is_ignored(self, counters: ModelCounters, sibling: ModelCounters) -> None:
        bucket = int(time.time()) // BUCKET_SECONDS
        for number in (2, 1, 2, 10, 9):  # as numbers: as a text 9 is more than 10
            counts = {"call_count": number}
            await sibling._write(Snapshot(number, number, (Row(0, "m", counts), Row(bucket, "m", counts)), {}))
            seen = (await counters.totals())["m"], (await counters.window(900))["m"]
            assert [one.call_count for one in seen] == [10 if number == 9 else max(number, 2)] * 2

    async def test_totals_are_the_fleet_s_and_local_totals_are_not(
        self, counters: ModelCounters, sibling: ModelCounters
    ) -> None:
        counters.record("m", "success", duration_seconds=0.1, usage={"input_tokens": 3})
        sibling.record("m", "failure", duration_seconds=0.2)
        sibling.record("n", "cancelled")
        assert list(await counters.totals()) == ["m"]
        await asyncio.gather(counters.flush(), sibling.flush())
        totals = await counters.totals()
        assert totals == await sibling.totals()
        assert numbers(totals["m"]) == {"call_count": 2, "success_count": 1, "failure_count": 1, "input_tokens": 3}
        assert (totals["m"].latency.count, totals["m"].latency.max_seconds) == (2, 0.2)
        assert list(counters.local_totals()) == ["m"]
        assert counters.local_totals()["m"].call_count == 1

    async def test_what_was_closed_stays_also_under_the_same_name(self, build: Build) -> None:
        for number in range(1, 4):
            async with build(replica_id="by-hand") as counters:
                counters.record("m", "success")
                assert (await counters.totals())["m"].call_count == number

    async def test_compaction_changes_no_total(self, counters: ModelCounters, sibling: ModelCounters) -> None:
        for replica, seconds in ((counters, 0.1), (sibling, 0.3)):
            replica.record("m", "success", duration_seconds=seconds)
            replica.record("n", "failure", error_type="auth")
            await replica.flush()
        before = await counters.totals()
        assert await counters.compact() == 0
        folded = await asyncio.gather(*[replica.compact(dead_after_seconds=0) for replica in (counters, sibling) * 3])
        assert sum(folded) == 4
        assert await counters.totals() == await sibling.totals() == before

    async def test_who_was_folded_comes_back_with_the_difference(
        self, counters: ModelCounters, sibling: ModelCounters
    ) -> None:
        for number in range(1, 5):
            counters.record("m", "success", duration_seconds=0.1)
            assert (await counters.totals())["m"].call_count == number
            await counters.flush()
            assert await sibling.compact(dead_after_seconds=0) == 1
            assert await sibling.compact(dead_after_seconds=0) == 0
            totals = await sibling.totals()
            assert totals == await counters.totals()
            assert (totals["m"].call_count, totals["m"].latency.count) == (number, number)

    async def test_sync_is_stored_when_it_returns(self, build: Build, sibling: ModelCounters) -> None:
        async with build(durability="sync", flush_interval_seconds=3600) as counters:
            await asyncio.gather(*[counters.arecord("m", "success", duration_seconds=0.1) for _ in range(20)])
            assert (await sibling.totals())["m"].call_count == 20
            await counters.increment("m", call_count=1)
            assert (await sibling.totals())["m"].call_count == 21

    async def test_a_cancelled_arecord_is_written(self, build: Build, sibling: ModelCounters) -> None:
        async with build(durability="sync", flush_interval_seconds=3600) as counters:
            waiting = asyncio.ensure_future(counters.arecord("m", "success"))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await self.sees(sibling, 1)

    async def test_batched_is_written_after_the_interval(self, build: Build, sibling: ModelCounters) -> None:
        async with build(flush_interval_seconds=0.05) as counters:
            await counters.arecord("m", "success")
            await self.sees(sibling, 1)

    async def test_batched_is_written_when_enough_wait(self, build: Build, sibling: ModelCounters) -> None:
        async with build(flush_interval_seconds=3600, flush_max_events=10) as counters:
            for _ in range(10):
                counters.record("m", "success")
            await self.sees(sibling, 10)

    async def test_close_writes_what_is_left(self, build: Build, sibling: ModelCounters) -> None:
        async with build(flush_interval_seconds=3600) as counters:
            counters.record("m", "success")
        assert (await sibling.totals())["m"].call_count == 1

    async def test_a_cancelled_close_writes_what_is_left(self, build: Build, sibling: ModelCounters) -> None:
        counters = build(flush_interval_seconds=3600)
        await counters.setup()
        counters.record("m", "success")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await counters.close()
        await self.sees(sibling, 1)

    async def sees(self, replica: ModelCounters, calls: int, *, within_seconds: float = 60.0) -> None:
        """Wait until the replica's totals have so many calls of the model `m`."""
        async with asyncio.timeout(within_seconds):
            # The flusher is another thread, maybe another process: only its effect can be watched.
            while (totals := (await replica.totals()).get("m")) is None or totals.call_count < calls:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert totals.call_count == calls
