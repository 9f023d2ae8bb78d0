"""`push="xread"`: no pub/sub, few connections, and streams that move between the blocking reads lose nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import NoPermissionError

from deerflow_replica.errors import StreamError
from deerflow_replica.stream import (
    END_SENTINEL,
    HEARTBEAT_SENTINEL,
    RedisStreamBridge,
    StreamEvent,
    StreamGap,
    StreamItem,
    blocking,
    shards,
)
from deerflow_replica.testing._stream_common import DEADLINE_SECONDS, numbers, publish_all, read, reading, until
from proxy import cutting_proxy

pytestmark = pytest.mark.anyio
Make = Callable[..., RedisStreamBridge]

_PUBSUB = ("publish", "spublish", "subscribe", "unsubscribe", "psubscribe", "ssubscribe", "pubsub", "client|unblock")


@pytest.fixture
def make(redis_url: str, key_prefix: str) -> Make:
    return partial(
        RedisStreamBridge,
        redis_url=redis_url,
        key_prefix=key_prefix,
        push="xread",
        check_interval_seconds=600,
        connect_timeout_seconds=60,
    )


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


def _pubsub_calls(client: redis.Redis) -> int:
    found: Any = client.info("commandstats")
    return sum(
        stats["calls"] + stats["rejected_calls"]
        for name, stats in found.items()
        if name.removeprefix("cmdstat_").startswith(_PUBSUB)
    )


async def _whole_life(writer: RedisStreamBridge, reader: RedisStreamBridge) -> None:
    """Publish, wait, join, reconnect, clean up, and find the streams of an owner that left."""
    async with reading(reader, "waits") as waits, reading(reader, "deleted") as deleted:
        waiting = asyncio.ensure_future(waits())
        await publish_all(writer, "waits", 3)
        assert (await waiting).data == 0
        await publish_all(writer, "deleted", 1)
        assert (await deleted()).data == 0
        await writer.cleanup("deleted")
        await reader.cleanup("deleted")
        assert isinstance(await deleted(), StreamGap)
        await writer.publish("waits", "n", "x" * 200_000)
        await writer.publish_end("waits")
        assert len(numbers(await read(reader, "waits"))) == 4


async def test_no_command_of_pubsub_is_used(make: Make, client: redis.Redis) -> None:
    before = _pubsub_calls(client)
    async with make() as writer, make(ack="server") as reader:
        await _whole_life(writer, reader)
    assert _pubsub_calls(client) == before


async def test_orphans_are_ended_without_pubsub(make: Make, client: redis.Redis) -> None:
    before = _pubsub_calls(client)
    options: dict[str, Any] = {"lease_seconds": 0.3, "check_interval_seconds": 0.1}
    async with make(**options) as reader:
        async with make(**options) as writer:
            await publish_all(writer, "r", 1)
        assert numbers(await read(reader, "r")) == [0]
        assert await reader.end_reason("r") == "orphaned"
    assert _pubsub_calls(client) == before


@contextmanager
def _user(client: redis.Redis, redis_url: str, **rules: Any) -> Iterator[redis.asyncio.Redis]:
    client.acl_setuser("reader", enabled=True, reset=True, passwords=["+geheim"], **rules)
    made = redis.asyncio.Redis.from_url(redis_url, username="reader", password="geheim")  # noqa: S106  # of this test
    try:
        yield made
    finally:
        client.acl_deluser("reader")


async def test_a_user_without_pubsub(make: Make, client: redis.Redis, redis_url: str, key_prefix: str) -> None:
    commands = ["-publish", "-subscribe", "-unsubscribe", "-client|unblock"]
    rules: dict[str, Any] = {"keys": [f"{key_prefix}*"], "reset_channels": True}
    categories = ["+@all", "-@pubsub", "-@admin", "-@dangerous"]
    with _user(client, redis_url, **rules, categories=categories, commands=[*commands, "+info"]) as borrowed:
        with pytest.raises(NoPermissionError):
            await borrowed.publish("channel", "")
        async with (
            make(redis_url=None, client=borrowed) as writer,
            make(redis_url=None, client=borrowed) as reader,
        ):
            await _whole_life(writer, reader)
        await borrowed.aclose()


async def test_two_thousand_idle_streams_share_twelve_connections(make: Make) -> None:
    async with make() as reader, make() as writer:
        waiting = [asyncio.ensure_future(read(reader, f"r{number}", items=1)) for number in range(2000)]
        await until(lambda: reader.stats().subscribers == 2000)
        await publish_all(writer, "r0", 1)
        assert numbers(await waiting[0]) == [0]
        assert reader.stats().connections <= 12
        for number in range(1, 2000):
            await writer.publish(f"r{number}", "n", number)
        assert [numbers(items) for items in await asyncio.gather(*waiting[1:])] == [[n] for n in range(1, 2000)]


@pytest.mark.parametrize("max_connections", [3, 4])
async def test_never_more_connections_than_allowed(
    make: Make, max_connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "_COLD_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(blocking, "FEW_STREAMS", 0)
    monkeypatch.setattr(shards, "STREAMS_PER_SHARD", 4)
    most = 0
    async with make(max_connections=max_connections) as bridge:
        waiting = [asyncio.ensure_future(read(bridge, f"r{number}")) for number in range(30)]
        for number in range(20):
            for run in range(30):
                if run % (1 + number % 4) == 0:
                    await bridge.publish(f"r{run}", "n", number)
            await bridge.flush()
            most = max(most, bridge.stats().connections)
        await until(lambda: bridge.stats().connections == max_connections)
        await asyncio.gather(*(bridge.publish_end(f"r{run}") for run in range(30)))
        for run, items in enumerate(await asyncio.gather(*waiting)):
            assert numbers(items) == [number for number in range(20) if run % (1 + number % 4) == 0]
    assert most <= max_connections


async def test_a_subscription_does_not_wait_for_the_read_that_blocks(make: Make, client: redis.Redis) -> None:
    async with make() as reader, make() as writer, reading(reader, "first") as first:
        await publish_all(writer, "first", 1)
        await first()
        async with asyncio.timeout(DEADLINE_SECONDS):
            for number in range(10):
                async with reading(reader, f"later{number}", heartbeat_interval=0.1) as later:
                    await later(beats=True)
                    await publish_all(writer, f"later{number}", 1)
                    assert (await later()).data == 0


async def test_the_wake_key_does_not_stay(make: Make, client: redis.Redis, key_prefix: str) -> None:
    async with make() as reader:
        waiting: list[asyncio.Task[Any]] = []

        def look() -> list[bytes]:
            waiting.append(asyncio.create_task(read(reader, f"r{len(waiting)}")))
            return list(client.scan_iter(f"{key_prefix}.wake:*"))

        await until(look)
        assert all(0 < client.pttl(key) <= 120_000 for key in look())
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_what_is_silent_is_read_apart(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "_COLD_AFTER_SECONDS", 0.2)
    monkeypatch.setattr(blocking, "FEW_STREAMS", 0)
    async with (
        make() as reader,
        make() as writer,
        reading(reader, "busy") as busy,
        reading(reader, "silent") as silent,
    ):
        await publish_all(writer, "silent", 1)
        assert (await silent()).data == 0
        assert reader.stats().connections == 2
        number = 0
        while reader.stats().connections < 3 or number < 20:
            await publish_all(writer, "busy", 1, start=number)
            assert (await busy()).data == number
            number += 1
        for number in range(1, 20):
            await publish_all(writer, "silent", 1, start=number)
            assert (await silent()).data == number


async def test_what_is_silent_costs_nothing(
    make: Make, client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read after any connection was made anew gives what is known once more, to be compared: that is no news."""
    monkeypatch.setattr(blocking, "_COLD_AFTER_SECONDS", 0.1)

    async def is_silent() -> None:
        for _ in range(20):  # what moves takes as long as the machine needs
            await tick(beats=True)
            before = _calls(client, "xread")
            await tick(beats=True)
            if _calls(client, "xread") - before <= 2:
                return
        raise AssertionError("it reads and reads")

    async with (
        cutting_proxy(redis_url) as proxy,
        make(redis_url=proxy.url) as reader,
        make() as writer,
        reading(reader, "clock", heartbeat_interval=1.2) as tick,
    ):
        waiting = [asyncio.ensure_future(read(reader, f"r{number}", items=2)) for number in range(400)]
        for number in range(400):
            await writer.publish(f"r{number}", "n", number)
        await writer.flush()
        await until(lambda: reader.stats().delivered == 400)
        await is_silent()
        pages = proxy.link(b"EVALSHA")
        assert pages is not None
        pages.cut()
        async with reading(reader, "another") as another:
            assert await another(beats=True) is HEARTBEAT_SENTINEL
            await until(lambda: reader.stats().reconnects)
            await is_silent()
        proxy.cut()
        await is_silent()
        await asyncio.gather(*(writer.publish_end(f"r{number}") for number in range(400)))
        assert [numbers(items) for items in await asyncio.gather(*waiting)] == [[number] for number in range(400)]


def _calls(client: redis.Redis, command: str) -> int:
    found: Any = client.info("commandstats")
    return int(found[f"cmdstat_{command}"]["calls"])


async def test_streams_that_move_lose_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers come, go and come back while streams move between the reads, and reads are ended."""
    monkeypatch.setattr(blocking, "_COLD_AFTER_SECONDS", 0.02)
    monkeypatch.setattr(blocking, "FEW_STREAMS", 0)
    monkeypatch.setattr(shards, "STREAMS_PER_SHARD", 2)
    dice = random.Random(7)
    runs = [f"r{number}" for number in range(9)]

    async def follow(reader: RedisStreamBridge, run: str) -> list[StreamItem]:
        found: list[StreamItem] = []
        while not found or found[-1] is not END_SENTINEL:
            last = next((item.id for item in reversed(found) if isinstance(item, StreamEvent)), None)
            found += await read(reader, run, last, items=dice.randint(1, 12))
            assert not isinstance(found[-1], StreamGap)
        return found

    async with make() as reader, make() as writer:
        found = [asyncio.ensure_future(follow(reader, run)) for run in runs for _ in range(2)]
        for number in range(150):
            for run in dice.sample(runs, dice.randint(1, 4)):
                await writer.publish(run, "n", number)
            await writer.flush()
        await asyncio.gather(*map(writer.publish_end, runs))
        for items, run in zip(await asyncio.gather(*found), [run for run in runs for _ in range(2)], strict=True):
            assert numbers(items) == numbers(await read(writer, run))
        assert reader.stats().gaps == 0
        assert reader.stats().reconnects == 0


async def test_a_key_of_another_type_fails_that_run_alone(make: Make, client: redis.Redis, key_prefix: str) -> None:
    async with make() as reader, make() as writer, reading(reader, "good") as good:
        await publish_all(writer, "good", 1)
        assert (await good()).data == 0
        waiting = asyncio.ensure_future(read(reader, "bad", items=1))
        await until(lambda: reader.stats().topics == 2)
        client.set(f"{key_prefix}:bad", "no stream", ex=60)
        await publish_all(writer, "good", 1, start=1)
        assert (await good()).data == 1
        with pytest.raises(StreamError, match="bad"):
            await read(reader, "bad", items=1)
        with pytest.raises(StreamError, match="bad"):
            await waiting
        for number in range(2, 6):
            await publish_all(writer, "good", 1, start=number)
            assert (await good()).data == number


async def test_a_clients_socket_timeout_ends_no_read(make: Make, redis_url: str) -> None:
    borrowed = redis.asyncio.Redis.from_url(redis_url, socket_timeout=0.1)
    async with make(redis_url=None, client=borrowed) as reader, make() as writer:
        async with reading(reader, "r", heartbeat_interval=0.5) as next_item:
            beat = await next_item(beats=True)
            assert beat.data is None
            await publish_all(writer, "r", 1)
            assert (await next_item()).data == 0
        assert reader.stats().reconnects == 0
    await borrowed.aclose()


async def test_a_reader_that_leaves_leaves_no_connection(make: Make) -> None:
    tasks = asyncio.all_tasks()
    async with make() as reader:
        for number in range(3):
            async with reading(reader, f"r{number}") as next_item:
                await next_item(beats=True)
        await until(lambda: reader.stats().topics == 0)
        await until(lambda: reader.stats().connections == 0 or reader.stats().connections == 1)
        await until(lambda: asyncio.all_tasks() == tasks)
