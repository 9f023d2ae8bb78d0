"""What is kept and for whom: bounds in events and bytes, readers that lag, and turns for everybody."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest

from ..errors import PayloadTooLargeError
from ..stream import END_SENTINEL, HEARTBEAT_SENTINEL, StreamBridge, StreamEvent, StreamGap
from ._stream_common import Open, StreamFixtures, ids, numbers, placed, publish_all, read, reading, until

TEN_BYTES = "x" * 8


class LimitsContract(StreamFixtures):
    """Bounded, and never a hole that nobody is told of."""

    async def test_data_that_fill_the_bytes_exactly_all_stay(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(max_stream_bytes=50)
        for _ in range(5):
            await bridge.publish(run_id, "a name is not data", TEN_BYTES)
        await bridge.flush()
        assert len(await read(bridge, run_id, "0", items=5)) == 5
        await bridge.publish(run_id, "n", "")
        await bridge.publish_end(run_id)
        known = await ids(bridge, run_id, 6)
        assert await read(bridge, run_id, "0") == [StreamGap("0", known[1], known[5])]
        assert await read(bridge, run_id, known[0]) == [*await read(bridge, run_id)]
        assert len(numbers(await read(bridge, run_id, known[0]))) == 5

    async def test_the_smaller_of_the_two_bounds_holds(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(max_stream_bytes=50, queue_maxsize=3)
        for _ in range(5):
            await bridge.publish(run_id, "n", TEN_BYTES)
        await bridge.publish_end(run_id)
        assert len(numbers(await read(bridge, run_id))) == 3

    async def test_the_newest_stays_however_large_until_the_next(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(max_stream_bytes=50)
        await bridge.publish(run_id, "n", 1)
        await bridge.publish(run_id, "n", "x" * 100)
        await bridge.flush()
        assert len((await read(bridge, run_id, items=1))[0].data) == 100  # type: ignore[union-attr]  # an event
        await bridge.publish(run_id, "n", 2)
        await bridge.publish_end(run_id)
        assert numbers(await read(bridge, run_id)) == [2]

    async def test_end_evicts_nothing_and_is_never_evicted(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=1, max_stream_bytes=1)
        await publish_all(bridge, run_id, 3, end=True)
        known = await ids(bridge, run_id, 4)
        assert numbers(await read(bridge, run_id)) == [2]
        assert await read(bridge, run_id, known[2]) == [END_SENTINEL]
        assert await read(bridge, run_id, known[3]) == [END_SENTINEL]
        assert await read(bridge, run_id, known[0]) == [StreamGap(known[0], known[2], known[2])]

    async def test_a_bound_of_one_event_is_counted_in_bytes(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(max_event_bytes=10)
        for fits in ("ü" * 4, 10**9, "x" * 8):
            await bridge.publish(run_id, "n", fits)
        for large, size in (("ü" * 5, 12), (10**10, 11)):
            with pytest.raises(PayloadTooLargeError) as caught:
                await bridge.publish(run_id, "n", large)
            assert (caught.value.size, caught.value.limit) == (size, 10)
        await publish_all(bridge, run_id, 1, end=True)
        items = await read(bridge, run_id)
        assert [item.id for item in items[:-1] if isinstance(item, StreamEvent)] == await ids(bridge, run_id, 4)

    async def test_a_reader_within_the_window_misses_nothing(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=2, live_window=300)
        async with (
            reading(bridge, run_id) as next_item,
            reading(bridge, f"{run_id}-clock", heartbeat_interval=0.6) as tick,
        ):
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await placed(bridge, run_id)
            for start in (0, 100, 200):
                await publish_all(bridge, run_id, 100, start=start)
                await tick(beats=True)  # longer, in all, than a server spares what is trimmed
            assert [(await next_item()).data for _ in range(300)] == list(range(300))

    async def test_a_reader_beyond_the_window_is_refilled_from_what_is_retained(
        self, open_bridge: Open, run_id: str
    ) -> None:
        bridge = await open_bridge(queue_maxsize=5000, live_window=10)
        async with reading(bridge, run_id) as next_item:
            await publish_all(bridge, run_id, 1)
            assert (await next_item()).data == 0
            await publish_all(bridge, run_id, 3000, start=1, end=True)
            assert [(await next_item()).data for _ in range(3000)] == list(range(1, 3001))
            assert await next_item() is END_SENTINEL

    async def test_a_reader_that_asks_again_before_it_was_answered_misses_nothing(
        self, open_bridge: Open, run_id: str
    ) -> None:
        bridge = await open_bridge(queue_maxsize=5000, live_window=10)

        async def publish_large() -> None:
            for _ in range(4):  # too large to be pushed: they are asked for between two pages
                await bridge.publish(f"{run_id}-large", "n", "x" * 100_000)
                await bridge.flush()

        # Its heartbeats wake it at every turn of the loop, many times within one trip to a server.
        async with (
            reading(bridge, run_id, heartbeat_interval=1e-9) as next_item,
            reading(bridge, f"{run_id}-large") as large,
        ):
            await publish_all(bridge, run_id, 1)
            assert (await next_item()).data == 0
            await large(beats=True)
            for start in range(1, 601, 60):
                await publish_all(bridge, run_id, 60, start=start)
                publishing = asyncio.ensure_future(publish_large())
                assert [(await next_item()).data for _ in range(60)] == list(range(start, start + 60))
                await publishing
            await bridge.publish_end(run_id)
            assert await next_item() is END_SENTINEL

    async def test_a_reader_that_lags_too_many_bytes_gets_one_gap(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=10, live_window=10_000, max_stream_bytes=100)
        feed = bridge.subscribe(run_id)
        await bridge.publish(run_id, "n", TEN_BYTES)
        await bridge.flush()
        first = await anext(feed)
        for _ in range(40):
            await bridge.publish(run_id, "n", TEN_BYTES)
        await bridge.publish_end(run_id)
        known = await ids(bridge, run_id, 41)
        *events, gap = [first, *[item async for item in feed]]
        assert isinstance(gap, StreamGap)
        assert [event.id for event in events if isinstance(event, StreamEvent)] == known[: len(events)]
        assert gap == StreamGap(known[len(events) - 1], known[31], known[40])

    async def test_there_is_a_gap_if_and_only_if_something_is_lost(self, open_bridge: Open, run_id: str) -> None:
        chance = random.Random(run_id)  # the name is in the failure
        bridge = await open_bridge(queue_maxsize=20, live_window=30, max_stream_bytes=600)

        async def follow(cursor: str | None, pace: float) -> list[Any]:
            found = []
            async for item in bridge.subscribe(run_id, last_event_id=cursor, heartbeat_interval=math.inf):
                found.append(item)
                if chance.random() < pace:
                    await asyncio.sleep(chance.random() * 0.01)
            return found

        readers = [asyncio.ensure_future(follow("0", pace)) for pace in (0, 0.02, 0.2, 0.9, 1)]
        await publish_all(bridge, run_id, 1, start=10_000)
        await until(lambda: bridge.stats().delivered == len(readers))
        for number in range(1, 1000):
            await bridge.publish(run_id, "n", number + 10_000)
            if chance.random() < 0.2:
                await asyncio.sleep(0)
            if chance.random() < 0.01:
                await bridge.flush(run_id)
        await bridge.publish_end(run_id)
        for items in await asyncio.gather(*readers):
            *events, last = items
            assert [event.data for event in events] == [10_000 + seq for seq in range(len(events))]
            if last is END_SENTINEL:
                assert len(events) == 1000
            else:
                assert last.requested_event_id == (events[-1].id if events else None)
                assert int(last.earliest_available_event_id.partition("-")[2]) > len(events)

    async def test_readers_of_a_process_share_the_decoded_object(self, bridge: StreamBridge, run_id: str) -> None:
        async with reading(bridge, run_id) as one, reading(bridge, run_id) as other:
            assert await one(beats=True) is await other(beats=True) is HEARTBEAT_SENTINEL
            await bridge.publish(run_id, "n", {"a": [1]})
            await bridge.flush()
            assert (await one()).data is (await other()).data

    async def test_publishing_and_reading_leave_turns_to_others(self, bridge: StreamBridge, run_id: str) -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.ensure_future(others())
        try:
            for number in range(256):
                await bridge.publish(run_id, "n", number)
            assert turns >= 4
            await bridge.publish_end(run_id)
            await read(bridge, run_id, items=1)
            turns = 0
            assert len(await read(bridge, run_id)) == 257
            assert turns >= 4
        finally:
            other.cancel()
            await asyncio.wait([other])

    async def test_a_reader_that_stands_still_delays_nobody(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=5, live_window=5)
        async with reading(bridge, run_id) as stands_still:
            await publish_all(bridge, run_id, 1)
            assert (await stands_still()).data == 0
            other = asyncio.ensure_future(read(bridge, f"{run_id}-other"))
            await publish_all(bridge, run_id, 2000, start=1, end=True)
            await publish_all(bridge, f"{run_id}-other", 5, end=True)
            assert numbers(await other) == list(range(5))

    async def test_without_heartbeats_nothing_comes(self, bridge: StreamBridge, run_id: str) -> None:
        silent = asyncio.ensure_future(read(bridge, run_id, heartbeat_interval=math.inf, items=1))
        async with reading(bridge, run_id, heartbeat_interval=0.1) as tick:
            for _ in range(3):
                assert await tick(beats=True) is HEARTBEAT_SENTINEL
        assert not silent.done()
        await publish_all(bridge, run_id, 1)
        assert numbers(await silent) == [0]
