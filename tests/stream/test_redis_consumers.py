"""Readers that are slow, dead or gone: they keep nobody waiting and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from deerflow_replica.stream import END_SENTINEL, RedisStreamBridge, StreamEvent, StreamGap
from deerflow_replica.testing._stream_common import publish_all, read, reading, until

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
Make = Callable[..., RedisStreamBridge]


@pytest.fixture
def make(redis_url: str, key_prefix: str, push: Literal["pubsub", "xread"]) -> Make:
    return partial(
        RedisStreamBridge,
        redis_url=redis_url,
        key_prefix=key_prefix,
        push=push,
        check_interval_seconds=0.3,
        connect_timeout_seconds=60,
    )


async def test_a_slow_reader_within_the_live_window_misses_nothing(make: Make) -> None:
    async with (
        make(queue_maxsize=10_000) as writer,
        make(live_window=500) as reader,
        reading(reader, "slow") as slow,
        reading(reader, "slow") as fast,
    ):
        await publish_all(writer, "slow", 1)
        assert (await slow()).data == (await fast()).data == 0
        for start in range(1, 2401, 400):
            await publish_all(writer, "slow", 400, start=start)
            assert [(await fast()).data for _ in range(400)] == list(range(start, start + 400))
            assert (await slow()).data == (start - 1) // 400 + 1
        # It is far behind what this process holds by now, and reads on from what is retained.
        await writer.publish_end("slow")
        assert await fast() is END_SENTINEL
        assert [(await slow()).data for _ in range(2394)] == list(range(7, 2401))
        assert await slow() is END_SENTINEL


async def test_a_reader_slower_than_everything_that_is_kept_gets_one_gap(make: Make) -> None:
    bounds = {"queue_maxsize": 50, "live_window": 50}  # equal: trimming waits for nobody
    async with (
        make(**bounds) as writer,
        make(**bounds) as reader,
        reading(reader, "r") as slow,
        reading(reader, "r") as fast,
    ):
        await publish_all(writer, "r", 1)
        first = await slow()
        assert (await fast()).data == 0
        for start in range(1, 1001, 20):
            await publish_all(writer, "r", 20, start=start)
            assert [(await fast()).data for _ in range(20)] == list(range(start, start + 20))
        assert await slow() == StreamGap(first.id, *await _bounds(writer, "r"))
        assert reader.stats().gaps == 1


async def _bounds(bridge: RedisStreamBridge, run: str) -> tuple[str, str]:
    events = [item for item in await read(bridge, run, items=50) if isinstance(item, StreamEvent)]
    return events[0].id, events[-1].id


async def test_a_dead_reader_delays_no_publisher_and_holds_no_more_than_its_window(make: Make) -> None:
    async with make(max_stream_bytes=2**20) as writer, make(max_stream_bytes=2**20, live_window=100) as reader:
        dead = reader.subscribe("r")
        await publish_all(writer, "r", 1)
        assert isinstance(await anext(dead), StreamEvent)
        async with reading(reader, "r", "0") as next_item:
            assert (await next_item()).data == 0
            for number in range(1, 400):
                await writer.publish("r", "n", [number, "x" * 10_000])
                if number % 21 == 0:
                    assert [(await next_item()).data[0] for _ in range(21)] == list(range(number - 20, number + 1))
            await writer.publish_end("r")
            assert await next_item() is END_SENTINEL
        ring = reader._feed.hub.topics["r"].ring  # what it holds shows nowhere else
        assert ring is not None
        assert 0 < ring.stored_bytes <= 2**20
        assert ring.tail - ring.low < 101
        assert [type(item) async for item in dead] == [StreamGap]


@pytest.mark.parametrize("kind", ["dropped", "cancelled", "closed"])
async def test_a_thousand_abandoned_subscriptions_leave_nothing(make: Make, kind: str) -> None:
    before = asyncio.all_tasks()
    async with make() as writer, make() as bridge:
        await publish_all(writer, "kept", 1)
        async with reading(bridge, "kept", heartbeat_interval=5.0) as next_item:
            assert (await next_item()).data == 0
            await until(lambda: bridge.stats().connections == 3)
            tasks, connections, files = len(asyncio.all_tasks()), bridge.stats().connections, _open_files()
            await _abandon(bridge, kind, 1000)
            gc.collect()
            await until(lambda: bridge.stats().subscribers == 1, timeout_seconds=1.0)
            await until(lambda: bridge.stats().topics == 1, timeout_seconds=2.0)
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            await until(lambda: bridge.stats().connections <= connections)
            await until(lambda: _open_files() <= files)
            assert len(bridge._feed.hub.heartbeats._queue) <= 2  # a timer shows nowhere else
            await publish_all(writer, "kept", 1, start=1)
            assert (await next_item()).data == 1
        assert bridge.stats().reconnects == 0
    await until(lambda: asyncio.all_tasks() == before)


async def _abandon(bridge: RedisStreamBridge, kind: str, count: int) -> None:
    interval = 1000.0 if kind == "cancelled" else 0.05
    feeds = [bridge.subscribe(f"r{number}", heartbeat_interval=interval) for number in range(count)]
    waiting = [asyncio.ensure_future(anext(feed)) for feed in feeds]
    await until(lambda: bridge.stats().subscribers == count + 1)
    if kind == "cancelled":
        for task in waiting:
            task.cancel()
    await asyncio.wait(waiting)
    if kind == "closed":
        await asyncio.gather(*(feed.aclose() for feed in feeds))


def _open_files() -> int:
    place = Path("/proc/self/fd")
    return len(list(place.iterdir())) if place.exists() else 0
