"""The cursor table: what a subscriber gets for what it asks."""

from __future__ import annotations

import asyncio
import gc
import math
from typing import Any

import pytest

from ..stream import END_SENTINEL, HEARTBEAT_SENTINEL, StreamBridge, StreamEvent, StreamGap
from ..stream.hub import Subscriber
from ._stream_common import Open, StreamFixtures, ids, numbers, placed, publish_all, read, reading, until

MALFORMED = [
    "-1", "", " ", "5", "abc", "1-", "-", "1-1-1", "01-1", "1-01", "00-0", "+1-1", "1-1 ", " 1-1", "1-1\n", "1\n-1",
    "１-1", "١-1", "1.0-1", "1_0-1", "0x1-1", "18446744073709551616-0", "0-18446744073709551616", "9" * 100_000,
    "\ud800",
]  # fmt: skip
FOREIGN = ["1-0", "1-5", "18446744073709551615-18446744073709551615", "0-1"]
EMPTY = StreamGap(None, None, None)


class CursorContract(StreamFixtures):
    """Nothing missed, nothing twice, or one gap."""

    async def test_without_a_cursor_what_is_retained_then_live(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=3)
        await publish_all(bridge, run_id, 5)
        async with reading(bridge, run_id) as next_item:
            assert [(await next_item()).data for _ in range(3)] == [2, 3, 4]
            await publish_all(bridge, run_id, 2, start=5)
            assert [(await next_item()).data for _ in range(2)] == [5, 6]

    async def test_without_a_stream_everything_from_the_first_event(self, bridge: StreamBridge, run_id: str) -> None:
        for cursor in (None, "0", "0-0", "-1", "abc"):
            name = f"{run_id}-{cursor}"
            async with reading(bridge, name, cursor) as next_item:
                assert await next_item(beats=True) is HEARTBEAT_SENTINEL
                await publish_all(bridge, name, 3, end=True)
                assert [(await next_item()).data for _ in range(3)] == [0, 1, 2]
                assert await next_item() is END_SENTINEL

    async def test_a_waiting_subscriber_creates_nothing(self, bridge: StreamBridge, run_id: str) -> None:
        async with reading(bridge, run_id) as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            assert not await bridge.stream_exists(run_id)
            assert await bridge.end_reason(run_id) is None

    async def test_every_id_resumes_strictly_after_itself(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 4, end=True)
        known = await ids(bridge, run_id, 4)
        for seq, cursor in enumerate(known):
            assert numbers(await read(bridge, run_id, cursor)) == list(range(seq + 1, 4))

    async def test_a_cursor_whose_next_event_is_gone_is_a_gap(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=3)
        await publish_all(bridge, run_id, 6)
        known = await ids(bridge, run_id, 6)
        assert await read(bridge, run_id, known[1]) == [StreamGap(known[1], known[3], known[5])]
        assert numbers(await read(bridge, run_id, known[2], items=3)) == [3, 4, 5]
        await bridge.publish_end(run_id)
        assert await read(bridge, run_id, known[1]) == [StreamGap(known[1], known[3], known[5])]
        assert numbers(await read(bridge, run_id, known[2])) == [3, 4, 5]

    async def test_strict_also_gaps_for_a_cursor_that_is_evicted_itself(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=3, resume_gap="strict")
        await publish_all(bridge, run_id, 6)
        known = await ids(bridge, run_id, 6)
        assert await read(bridge, run_id, known[2]) == [StreamGap(known[2], known[3], known[5])]
        assert numbers(await read(bridge, run_id, known[3], items=2)) == [4, 5]

    async def test_a_reader_that_has_everything_gets_no_gap(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=1)
        await publish_all(bridge, run_id, 5)
        last = (await ids(bridge, run_id, 5))[-1]
        async with reading(bridge, run_id, last) as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await bridge.publish(run_id, "n", 5)
            assert (await next_item()).data == 5

    @pytest.mark.parametrize("cursor", ["0", "0-0"])
    async def test_zero_is_everything_or_a_gap(self, open_bridge: Open, run_id: str, cursor: str) -> None:
        bridge = await open_bridge(queue_maxsize=3)
        await publish_all(bridge, run_id, 3)
        assert numbers(await read(bridge, run_id, cursor, items=3)) == [0, 1, 2]
        await publish_all(bridge, run_id, 1, start=3, end=True)
        known = await ids(bridge, run_id, 4)
        assert await read(bridge, run_id, cursor) == [StreamGap(cursor, known[1], known[3])]

    async def test_the_last_id_and_the_id_of_end_are_end_at_once(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 2, end=True)
        *_, last, end = await ids(bridge, run_id, 3)
        assert await read(bridge, run_id, last) == [END_SENTINEL]
        assert (await read(bridge, run_id, end))[0] is END_SENTINEL

    async def test_a_stream_of_end_alone(self, bridge: StreamBridge, run_id: str) -> None:
        await bridge.publish_end(run_id, reason="nothing to say")
        for cursor in (None, "0", "-1"):
            assert await read(bridge, run_id, cursor) == [END_SENTINEL]
        assert await read(bridge, run_id, "1-0") == [StreamGap("1-0", None, None)]
        assert await bridge.stream_exists(run_id)
        assert await bridge.end_reason(run_id) == "nothing to say"

    @pytest.mark.parametrize("ended", [False, True])
    async def test_an_id_that_was_never_issued_here_is_a_gap_at_once(
        self, bridge: StreamBridge, run_id: str, ended: bool
    ) -> None:
        for cursor in FOREIGN:
            assert await read(bridge, run_id, cursor) == [StreamGap(cursor, None, None)]
        await publish_all(bridge, run_id, 2, end=ended)
        known = await ids(bridge, run_id, 5)
        for cursor in (*FOREIGN, known[3] if ended else known[2], known[4]):
            assert await read(bridge, run_id, cursor) == [StreamGap(cursor, known[0], known[1])]

    @pytest.mark.parametrize("cursor", MALFORMED, ids=range(len(MALFORMED)))
    async def test_what_is_no_id_is_as_none(self, bridge: StreamBridge, run_id: str, cursor: str) -> None:
        await publish_all(bridge, run_id, 2)
        assert numbers(await read(bridge, run_id, cursor, items=2)) == [0, 1]
        await bridge.publish_end(run_id)
        assert numbers(await read(bridge, run_id, cursor)) == [0, 1]

    @pytest.mark.parametrize("cursor", ["-1", "abc"])
    async def test_tail_gives_only_what_comes_next_while_active(
        self, open_bridge: Open, run_id: str, cursor: str
    ) -> None:
        bridge = await open_bridge(invalid_cursor="tail")
        async with reading(bridge, run_id, cursor) as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await placed(bridge, run_id)
            await publish_all(bridge, run_id, 2)
            assert (await next_item()).data == 0
        async with reading(bridge, run_id, cursor) as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await placed(bridge, run_id)
            await publish_all(bridge, run_id, 1, start=2, end=True)
            assert (await next_item()).data == 2
            assert await next_item() is END_SENTINEL
        assert numbers(await read(bridge, run_id, cursor)) == [0, 1, 2]

    async def test_retention_by_bytes(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(max_stream_bytes=100)
        for _ in range(10):
            await bridge.publish(run_id, "n", "x" * 28)  # 30 bytes of JSON
        await bridge.flush()
        assert len(await read(bridge, run_id, items=3)) == 3
        known = await ids(bridge, run_id, 10)
        assert await read(bridge, run_id, "0") == [StreamGap("0", known[7], known[9])]
        await bridge.publish(run_id, "n", "x" * 500)
        await bridge.publish_end(run_id)
        assert len(numbers(await read(bridge, run_id))) == 1

    async def test_a_burst_over_the_retention_leaves_no_gap_for_who_is_attached(
        self, open_bridge: Open, run_id: str
    ) -> None:
        bridge = await open_bridge(queue_maxsize=3)
        async with reading(bridge, run_id) as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await placed(bridge, run_id)
            await publish_all(bridge, run_id, 300, end=True)
            assert [(await next_item()).data for _ in range(300)] == list(range(300))
            assert await next_item() is END_SENTINEL

    async def test_a_reader_that_lags_more_than_the_window_and_the_retention_gets_a_gap(
        self, open_bridge: Open, run_id: str
    ) -> None:
        bridge = await open_bridge(queue_maxsize=2, live_window=4, max_stream_bytes=200)
        async with reading(bridge, run_id) as next_item:
            await publish_all(bridge, run_id, 1)
            first = await next_item()
            for _ in range(40):
                await bridge.publish(run_id, "n", "x" * 28)
            await bridge.flush()
            items = [await next_item()]
            while isinstance(items[-1], StreamEvent):
                items.append(await next_item())
            *events, gap = items
            last = events[-1].id if events else first.id
            assert gap.requested_event_id == last
            assert len(events) < 40

    async def test_a_live_window_that_is_the_retention_spares_nothing(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=2, live_window=2)
        async with reading(bridge, run_id) as slow, reading(bridge, run_id) as brisk:
            await publish_all(bridge, run_id, 1)
            first = await slow()
            assert await brisk() == first
            for number in range(1, 6):
                await publish_all(bridge, run_id, 1, start=number)
                assert (await brisk()).data == number
            known = await ids(bridge, run_id, 6)
            assert await slow() == StreamGap(first.id, known[4], known[5])

    async def test_heartbeats_come_while_nothing_else_does(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 1)
        async with reading(bridge, run_id) as next_item:
            assert (await next_item()).data == 0
            assert [await next_item(beats=True) for _ in range(3)] == [HEARTBEAT_SENTINEL] * 3

    async def test_heartbeats_are_half_a_second_late_at_most(self, bridge: StreamBridge, run_id: str) -> None:
        loop = asyncio.get_running_loop()
        async with (
            reading(bridge, run_id, heartbeat_interval=0.21) as next_item,
            reading(bridge, f"{run_id}-other", heartbeat_interval=0.16) as other,
        ):
            for _ in range(3):
                began = loop.time()
                beats = asyncio.gather(next_item(beats=True), other(beats=True))
                await _done_or_late(beats, 0.21 + 0.5)
                assert beats.done()
                assert loop.time() - began > 0.2

    async def test_a_heartbeat_is_due_after_the_wait_not_after_the_readers_own_time(
        self, bridge: StreamBridge, run_id: str
    ) -> None:
        await publish_all(bridge, run_id, 2)
        async with (
            reading(bridge, run_id, heartbeat_interval=0.2) as next_item,
            reading(bridge, f"{run_id}-clock", heartbeat_interval=0.3) as tick,
        ):
            await next_item()
            await tick(beats=True)
            assert (await next_item(beats=True)).data == 1
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            assert loop.time() - began >= 0.15

    async def test_bad_arguments_raise_in_the_call_itself(self, bridge: StreamBridge, run_id: str) -> None:
        wrong: Any = 5
        for bad in (0, -1.0, math.nan):
            with pytest.raises(ValueError, match="heartbeat_interval"):
                bridge.subscribe(run_id, heartbeat_interval=bad)
        with pytest.raises(TypeError, match="last_event_id"):
            bridge.subscribe(run_id, last_event_id=wrong)
        with pytest.raises(TypeError, match="run_id"):
            bridge.subscribe(wrong)
        with pytest.raises(ValueError, match="run_id"):
            bridge.subscribe("")

    @pytest.mark.parametrize("ended", [False, True])
    async def test_deleted_under_a_reader_is_what_is_held_then_a_gap(
        self, bridge: StreamBridge, run_id: str, ended: bool
    ) -> None:
        await publish_all(bridge, run_id, 3, end=ended)
        known = await ids(bridge, run_id, 3)
        async with reading(bridge, run_id) as next_item:
            assert (await next_item()).data == 0
            await bridge.cleanup(run_id)
            await publish_all(bridge, run_id, 1, start=100)
            assert [(await next_item()).data for _ in range(2)] == [1, 2]
            last = await next_item()
            assert (last is END_SENTINEL) if ended else (last == StreamGap(known[2], None, None))

    async def test_who_never_had_a_stream_keeps_waiting(self, bridge: StreamBridge, run_id: str) -> None:
        async with reading(bridge, run_id) as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await bridge.cleanup(run_id)
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await publish_all(bridge, run_id, 1)
            assert (await next_item()).data == 0

    async def test_old_ids_are_foreign_to_a_stream_made_anew(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 2)
        old = await ids(bridge, run_id, 2)
        await bridge.cleanup(run_id)
        await publish_all(bridge, run_id, 1)
        (new,) = await ids(bridge, run_id, 1)
        assert int(new.partition("-")[0]) > int(old[0].partition("-")[0])
        assert await read(bridge, run_id, old[0]) == [StreamGap(old[0], new, new)]

    async def test_abandoned_subscriptions_are_collected(self, bridge: StreamBridge, run_id: str) -> None:
        async with reading(bridge, run_id, heartbeat_interval=math.inf) as stays:
            for _ in range(1000):
                feed = bridge.subscribe(run_id, heartbeat_interval=3600)
                waiting = asyncio.ensure_future(anext(feed))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
                del feed, waiting
            await publish_all(bridge, run_id, 1)
            assert (await stays()).data == 0
            for _ in range(10):
                assert (await anext(bridge.subscribe(run_id))).data == 0  # type: ignore[union-attr]  # an event
            gc.collect()
            await until(lambda: bridge.stats().subscribers == 1)
            left = sum(isinstance(thing, Subscriber) for thing in gc.get_objects())
            assert left < 10

    async def test_a_subscription_that_is_left_leaves_nothing(self, bridge: StreamBridge, run_id: str) -> None:
        feeds = [bridge.subscribe(run_id, heartbeat_interval=0.05) for _ in range(20)]
        for feed in feeds:
            assert await anext(feed) is HEARTBEAT_SENTINEL
        assert bridge.stats().subscribers == 20
        waiting = asyncio.ensure_future(anext(feeds[0]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        for feed in feeds:
            await feed.aclose()
        assert bridge.stats().subscribers == 0
        await until(lambda: not bridge.stats().topics, timeout_seconds=2.5)


async def _done_or_late(work: asyncio.Future[Any], seconds: float) -> None:
    """Wait so long by the loop's clock, and for what is due at the same time after the machine stood still."""
    late = asyncio.create_task(asyncio.sleep(seconds))
    work.add_done_callback(lambda _: late.cancel())
    await asyncio.wait([late])
    for _ in range(10):
        await asyncio.sleep(0)
