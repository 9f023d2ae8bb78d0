"""Real processes: one publishes, another reads; a producer that is killed."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from deerflow_replica.stream import END_SENTINEL, RedisStreamBridge, StreamEvent
from deerflow_replica.testing._stream_common import numbers, read, until

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
Push = Literal["pubsub", "xread"]
SCRIPT = Path(__file__).with_name("stream_process.py")


@asynccontextmanager
async def producer(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"  # a busy machine takes long to import it
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_reader_that_reconnects_at_other_replicas_gets_everything_once(
    redis_url: str, key_prefix: str, push: Push
) -> None:
    seen: list[int] = []
    cursor: str | None = None
    done = False
    async with producer(redis_url, key_prefix, push, "r", "1500", "end") as process:
        while not done:
            async with RedisStreamBridge(redis_url=redis_url, key_prefix=key_prefix, push=push) as replica:
                for item in await read(replica, "r", cursor, items=171):
                    if item is END_SENTINEL:
                        done = True
                        break
                    assert isinstance(item, StreamEvent), item
                    seen.append(item.data)
                    cursor = item.id
        assert await process.wait() == 0
    assert seen == list(range(1500))


async def test_a_killed_producer_ends_its_stream_as_orphaned(redis_url: str, key_prefix: str, push: Push) -> None:
    async with (
        RedisStreamBridge(
            redis_url=redis_url, key_prefix=key_prefix, push=push, lease_seconds=1.0, check_interval_seconds=0.5
        ) as bridge,
        producer(redis_url, key_prefix, push, "r", "20", "wait") as process,
    ):
        feed = bridge.subscribe("r", heartbeat_interval=math.inf)
        for number in range(20):
            item = await anext(feed)
            assert item.data == number  # type: ignore[union-attr]  # a gap would fail here
        assert process.stdout is not None
        assert await process.stdout.readline() == b"published\n"
        process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        async with asyncio.timeout(10):
            assert await anext(feed) is END_SENTINEL
        assert time.monotonic() - began < 1.5 + 0.5 + 1.0
        await feed.aclose()
        assert await bridge.end_reason("r") == "orphaned"
        assert bridge.stats().orphaned == 1


async def test_a_living_producer_that_is_silent_is_left_alone(redis_url: str, key_prefix: str, push: Push) -> None:
    async with (
        RedisStreamBridge(
            redis_url=redis_url, key_prefix=key_prefix, push=push, lease_seconds=0.5, check_interval_seconds=0.1
        ) as bridge,
        producer(redis_url, key_prefix, push, "r", "1", "wait") as process,
    ):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"published\n"
        feed = bridge.subscribe("r", heartbeat_interval=0.2)
        await anext(feed)
        for _ in range(10):
            assert (await anext(feed)).event == "__heartbeat__"  # type: ignore[union-attr]  # a gap would fail here
        await feed.aclose()
        assert await bridge.end_reason("r") is None


async def test_the_late_owner_of_an_orphan_is_told(redis_url: str, key_prefix: str, push: Push) -> None:
    async with (
        RedisStreamBridge(
            redis_url=redis_url, key_prefix=key_prefix, push=push, lease_seconds=0.3, check_interval_seconds=0.1
        ) as reader,
        producer(redis_url, key_prefix, push, "r", "1", "wait") as process,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.readline() == b"published\n"
        process.send_signal(signal.SIGSTOP)
        try:
            event, end = await read(reader, "r")
        finally:
            process.send_signal(signal.SIGCONT)
        assert isinstance(event, StreamEvent)
        assert end is END_SENTINEL
        assert await reader.end_reason("r") == "orphaned"
        process.stdin.write(b"go on\n")
        answers = [await process.stdout.readline() for _ in range(3)]
        assert answers == [b"stored\n", b"StreamEndedError\n", b"StreamEndedError\n"]
        assert await process.wait() == 0
        assert len(await read(reader, "r")) == 2
        await until(lambda: reader.stats().topics == 0)


async def test_a_producer_stopped_among_its_events_stores_nothing_after_end(
    redis_url: str, key_prefix: str, push: Push
) -> None:
    async with (
        RedisStreamBridge(
            redis_url=redis_url, key_prefix=key_prefix, push=push, lease_seconds=1.0, check_interval_seconds=0.1
        ) as reader,
        producer(redis_url, key_prefix, push, "r", "1", "on") as process,
    ):
        assert process.stdout is not None
        live = asyncio.ensure_future(read(reader, "r"))
        await until(lambda: reader.stats().delivered > 300)
        process.send_signal(signal.SIGSTOP)
        try:
            items = await live
        finally:
            process.send_signal(signal.SIGCONT)
        assert items[-1] is END_SENTINEL
        assert numbers(items) == list(range(len(items) - 1))
        assert await reader.end_reason("r") == "orphaned"
        assert await process.stdout.readline() == b"StreamEndedError\n"
        assert await process.wait() == 0
        assert numbers(await read(reader, "r", "0")) == numbers(items)
