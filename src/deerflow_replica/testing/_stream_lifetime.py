"""How long a stream lives: clean-up, expiry, what is remembered afterwards, and what closing leaves."""

from __future__ import annotations

import asyncio
import gc

import pytest

from ..errors import StreamEndedError
from ..stream import END_SENTINEL, HEARTBEAT_SENTINEL, StreamBridge, StreamEvent, StreamGap
from ..stream.ring import Entry, Ring
from ._stream_common import (
    Build,
    Open,
    StreamFixtures,
    first_event,
    ids,
    numbers,
    placed,
    publish_all,
    read,
    reading,
    until,
)


class LifetimeContract(StreamFixtures):
    """Gone means gone, and what comes after is told apart from it."""

    async def test_cleanup_comes_after_what_was_accepted(self, bridge: StreamBridge, run_id: str) -> None:
        for number in range(5):
            await bridge.publish(run_id, "n", number)
        await bridge.cleanup(run_id, delay=60)
        assert numbers(await read(bridge, run_id, items=5)) == list(range(5))
        for number in range(5):
            await bridge.publish(run_id, "n", number)
        await bridge.cleanup(run_id)
        await bridge.flush()
        assert not await bridge.stream_exists(run_id)

    async def test_cleanup_of_nothing_leaves_the_next_stream_alone(self, bridge: StreamBridge, run_id: str) -> None:
        await bridge.cleanup(run_id, delay=0.1)
        await bridge.cleanup(run_id)
        await publish_all(bridge, run_id, 1)
        await bridge.cleanup(run_id, delay=0.2)
        await bridge.cleanup(run_id)
        await publish_all(bridge, run_id, 1)
        async with reading(bridge, run_id, heartbeat_interval=0.4) as next_item:
            assert (await next_item()).data == 0
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
        assert await bridge.stream_exists(run_id)

    async def test_until_it_is_cleaned_up_a_stream_is_as_before(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 2, end=True)
        known = await ids(bridge, run_id, 2)
        await bridge.cleanup(run_id, delay=3600)
        assert numbers(await read(bridge, run_id, known[0])) == [1]
        assert await bridge.end_reason(run_id) == "done"
        with pytest.raises(StreamEndedError):
            await _stored(bridge, run_id)
        await bridge.cleanup(run_id, delay=0.1)
        await _gone(bridge, run_id)
        assert await read(bridge, run_id, known[0]) == [StreamGap(known[0], None, None)]

    async def test_a_reader_is_told_when_a_clean_up_is_due(self, bridge: StreamBridge, run_id: str) -> None:
        async with reading(bridge, run_id) as next_item:
            await publish_all(bridge, run_id, 2)
            events = [await next_item() for _ in range(2)]
            await bridge.cleanup(run_id, delay=0.2)
            assert await next_item() == StreamGap(events[-1].id, None, None)

    async def test_a_reader_is_told_of_expiry(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(stream_ttl_seconds=0.3)
        async with reading(bridge, run_id) as next_item:
            event = await first_event(bridge, run_id, next_item)
            while isinstance(item := await next_item(), StreamEvent):
                event = item
            assert item == StreamGap(event.id, None, None)

    async def test_what_was_made_anew_is_not_read_as_what_was_there(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 3)
        known = await ids(bridge, run_id, 3)
        async with reading(bridge, run_id, known[2]) as at_the_end, reading(bridge, run_id, known[1]) as behind:
            assert await at_the_end(beats=True) is HEARTBEAT_SENTINEL
            await placed(bridge, run_id)
            assert (await behind()).data == 2
            await bridge.cleanup(run_id)
            await publish_all(bridge, run_id, 8, end=True)
            assert await at_the_end() == StreamGap(known[2], None, None)
            assert await behind() == StreamGap(known[2], None, None)

    @pytest.mark.parametrize("ttl", [None, 0])
    async def test_a_time_to_live_of_nothing_is_for_ever(
        self, open_bridge: Open, run_id: str, ttl: float | None
    ) -> None:
        bridge = await open_bridge(stream_ttl_seconds=ttl)
        await publish_all(bridge, run_id, 2, end=True)
        assert numbers(await read(bridge, run_id)) == [0, 1]
        await bridge.cleanup(run_id, delay=0.05)
        await _gone(bridge, run_id)

    async def test_end_is_remembered_beyond_the_stream(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(stream_ttl_seconds=0.1)
        await publish_all(bridge, run_id, 1, end=True)
        await _gone(bridge, run_id)
        with pytest.raises(StreamEndedError):
            await bridge.publish(run_id, "n", 1)
        await bridge.publish_end(run_id)
        assert not await bridge.stream_exists(run_id)
        await bridge.cleanup(run_id)
        async with reading(bridge, run_id) as next_item:
            assert (await first_event(bridge, run_id, next_item)).data == 0

    async def test_a_call_that_is_cancelled_is_stored_if_it_was_accepted(
        self, bridge: StreamBridge, run_id: str
    ) -> None:
        before = asyncio.ensure_future(bridge.publish(run_id, "n", "before"))
        before.cancel()
        await asyncio.wait([before])
        after = asyncio.ensure_future(bridge.publish(run_id, "n", "after"))
        await asyncio.sleep(0)
        after.cancel()
        await asyncio.wait([after])
        await bridge.publish_end(run_id)
        assert numbers(await read(bridge, run_id)) == ["after"]

    async def test_what_nobody_needs_any_more_is_freed(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=2)
        rings, entries = _held(Ring), _held(Entry)
        async with reading(bridge, run_id) as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await placed(bridge, run_id)
            for start in range(0, 2000, 250):
                await publish_all(bridge, run_id, 250, start=start, end=start == 1750)
                assert [(await next_item()).data for _ in range(250)] == list(range(start, start + 250))
            assert await next_item() is END_SENTINEL
        await until(lambda: _held(Entry) <= entries + 300, timeout_seconds=2.5)
        await bridge.cleanup(run_id)
        await until(lambda: not bridge.stats().topics, timeout_seconds=2.5)
        await until(lambda: (_held(Ring), _held(Entry)) == (rings, entries))

    async def test_closing_leaves_nothing(self, build: Build, run_id: str) -> None:
        rings = _held(Ring)
        bridge = build()
        async with bridge:
            await publish_all(bridge, run_id, 3)
            assert len(await read(bridge, run_id, items=3)) == 3
            await asyncio.gather(bridge.close(), bridge.close())
        stats = bridge.stats()
        assert (stats.pending_events, stats.subscribers, stats.topics, stats.connections) == (0, 0, 0, 0)
        assert _held(Ring) == rings


async def _stored(bridge: StreamBridge, run_id: str) -> None:
    await bridge.publish(run_id, "n", None)
    await bridge.flush(run_id)


async def _gone(bridge: StreamBridge, run_id: str) -> None:
    async def is_gone() -> bool:
        return not await bridge.stream_exists(run_id)

    await until(is_gone)


def _held(kind: type) -> int:
    gc.collect()
    return sum(isinstance(thing, kind) for thing in gc.get_objects())
