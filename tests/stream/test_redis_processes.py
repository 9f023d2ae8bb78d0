"""Real processes: one publishes, another reads; a producer that is killed."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import redis

from deerflow_replica.stream import END_SENTINEL, HEARTBEAT_SENTINEL, RedisStreamBridge, StreamEvent
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.testing._stream_common import numbers, read, reading, until

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
Push = Literal["pubsub", "xread"]
SCRIPT = Path(__file__).with_name("stream_process.py")


@asynccontextmanager
async def producer(*arguments: str, lease_seconds: float = 60.0) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        *arguments,
        str(lease_seconds),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
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
    async def is_ended_in_time(lease: float) -> bool:
        name = f"r{lease}"
        options: dict[str, Any] = {"redis_url": redis_url, "key_prefix": key_prefix, "push": push}
        async with (
            RedisStreamBridge(**options, lease_seconds=lease, check_interval_seconds=lease / 2) as bridge,
            producer(redis_url, key_prefix, push, name, "20", "wait", lease_seconds=lease) as process,
        ):
            assert process.stdout is not None
            if await process.stdout.readline() != b"published\n":
                return False  # it stood still, and was taken for dead before
            found = asyncio.ensure_future(read(bridge, name))
            await until(lambda: bridge.stats().delivered == 20)
            process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            items = await found
            seconds = time.monotonic() - began
            assert numbers(items) == list(range(20))
            assert items[-1] is END_SENTINEL
            assert await bridge.end_reason(name) == "orphaned"
            assert bridge.stats().orphaned == 1
        return seconds < 1.5 * lease + lease / 2 + 1.0

    assert await for_one_of((1.0, 8.0), is_ended_in_time)


async def test_a_living_producer_that_is_silent_is_left_alone(redis_url: str, key_prefix: str, push: Push) -> None:
    async def is_left_alone(lease: float) -> bool:
        name = f"r{lease}"
        options: dict[str, Any] = {"redis_url": redis_url, "key_prefix": key_prefix, "push": push}
        async with (
            RedisStreamBridge(**options, lease_seconds=lease / 2, check_interval_seconds=0.1) as bridge,
            producer(redis_url, key_prefix, push, name, "1", "wait", lease_seconds=lease) as process,
        ):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"published\n"
            async with reading(bridge, name, heartbeat_interval=lease / 5) as next_item:
                assert (await next_item()).data == 0
                for _ in range(10):
                    if await next_item(beats=True) is not HEARTBEAT_SENTINEL:
                        return False
            return await bridge.end_reason(name) is None

    # Who stands still for a lease and a half is taken for dead, rightly.
    assert await for_one_of((1.0, 8.0), is_left_alone)


async def test_the_late_owner_of_an_orphan_is_told(redis_url: str, key_prefix: str, push: Push) -> None:
    async with (
        RedisStreamBridge(
            redis_url=redis_url, key_prefix=key_prefix, push=push, lease_seconds=0.3, check_interval_seconds=0.1
        ) as reader,
        producer(redis_url, key_prefix, push, "r", "1", "wait", lease_seconds=1.0) as process,
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
        with redis.Redis.from_url(redis_url) as client:
            client.delete(*client.scan_iter(f"{key_prefix}.owner:*"))  # as if it had lapsed meanwhile
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
