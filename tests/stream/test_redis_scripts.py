"""What scripts answer and push, also at moments that no test can time: between a look and what was decided on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from deerflow_replica._drivers.redis import Lane, RedisServer
from deerflow_replica.stream import END_SENTINEL, RedisStreamBridge
from deerflow_replica.stream.base import StreamSettings
from deerflow_replica.stream.ends import AGAIN
from deerflow_replica.stream.keys import StreamKeys
from deerflow_replica.stream.orphans import Orphans
from deerflow_replica.stream.publisher import APPEND, Limits
from deerflow_replica.stream.reads import READ
from deerflow_replica.testing._stream_common import ids, numbers, publish_all, read, reading, until

pytestmark = pytest.mark.anyio
Make = Callable[..., RedisStreamBridge]


@pytest.fixture
def make(redis_url: str, key_prefix: str) -> Make:
    return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def keys(key_prefix: str) -> StreamKeys:
    return StreamKeys(key_prefix)


@pytest.fixture
async def lane(redis_url: str) -> AsyncIterator[Lane]:
    made = Lane(RedisServer(url=redis_url, client=None, timeout_seconds=5), [APPEND, AGAIN, READ])
    yield made
    await made.close()


async def _end_orphan(lane: Lane, keys: StreamKeys, owner: str) -> int:
    """As a process does that found the lease of `owner` missing, whatever is so now. How many it ended."""

    async def call(*commands: Any) -> list[Any]:
        return [0 if name == "EXISTS" else (await lane.call((name, *rest)))[0] for name, *rest in commands]

    orphans = Orphans("reader", keys, Limits.of(StreamSettings(), pushes=True), lease_seconds=1e-300)
    orphans.watch("r", owner)
    await orphans.look(call)
    await orphans.settle(call)
    return orphans.ended


def _owner(client: redis.Redis, keys: StreamKeys) -> str:
    found: Any = client.hget(keys.meta("r"), "owner")
    return bytes(found).decode()


async def test_an_owner_whose_lease_is_back_keeps_its_run(
    make: Make, client: redis.Redis, keys: StreamKeys, lane: Lane
) -> None:
    async with make() as writer:
        await publish_all(writer, "r", 1)
        owner = _owner(client, keys)
        assert await _end_orphan(lane, keys, owner) == 0
        await publish_all(writer, "r", 1, start=1)
    client.delete(keys.owner(owner))
    assert await _end_orphan(lane, keys, owner) == 1


async def test_a_run_that_another_took_over_is_no_orphan_of_its_first_owner(
    make: Make, client: redis.Redis, keys: StreamKeys, lane: Lane
) -> None:
    async with make() as first:
        await publish_all(first, "r", 1)
        before = _owner(client, keys)
    client.delete(keys.owner(before))
    async with make() as second:
        await publish_all(second, "r", 1, start=1)
        assert await _end_orphan(lane, keys, before) == 0
        await publish_all(second, "r", 1, start=2, end=True)
        assert numbers(await read(second, "r")) == [0, 1, 2]


async def test_every_owner_is_given_its_own_time(keys: StreamKeys) -> None:
    clock = asyncio.get_running_loop().time
    missing = {keys.owner("first")}

    async def call(*commands: Any) -> list[Any]:
        return [int(command[1] not in missing) if command[0] == "EXISTS" else [[0]] for command in commands]

    orphans = Orphans("reader", keys, Limits.of(StreamSettings(), pushes=True), lease_seconds=0.2)
    orphans.watch("r1", "first")
    orphans.watch("r2", "second")
    await orphans.look(call)
    missing.add(keys.owner("second"))
    for ended in (1, 2):
        await until(lambda: clock() >= orphans.due)
        await orphans.settle(call)
        assert orphans.ended == ended


async def test_an_end_is_written_again_only_where_it_is_missing(
    make: Make, client: redis.Redis, keys: StreamKeys, lane: Lane
) -> None:
    async def again(epoch: str, seq: int) -> Any:
        (reply,) = await lane.call(AGAIN.command(keys.of_run("r"), (epoch, seq, "lost", "writer", 1)))
        return reply

    async with make() as bridge, make() as other:
        await publish_all(bridge, "r", 2)
        epoch = (await ids(bridge, "r", 1))[0].partition("-")[0]
        assert await again("17", 5) == 0  # of another stream
        assert await again(epoch, 1) == 0  # somebody is writing where it was
        await other.publish_end("r", reason="first")
        assert await again(epoch, 5) == 0
        assert client.xlen(keys.stream("r")) == 3
        assert await other.end_reason("r") == "first"


async def test_readers_are_told_of_an_end_that_is_written_again(
    make: Make, client: redis.Redis, keys: StreamKeys, lane: Lane
) -> None:
    async with make() as bridge:
        await publish_all(bridge, "r", 1)
        epoch = (await ids(bridge, "r", 1))[0].partition("-")[0]
        with client.pubsub() as pushes:  # type: ignore[no-untyped-call]  # redis-py's
            pushes.subscribe(keys.stream("r"))
            assert pushes.get_message(timeout=20)
            assert await lane.call(AGAIN.command(keys.of_run("r"), (epoch, 1, "lost", "writer", 1))) == [1]
            message: Any = pushes.get_message(timeout=20)
            assert message["data"] == f"tail {epoch} 1 0\n".encode()


async def test_what_is_too_large_to_push_is_only_announced(make: Make, client: redis.Redis, keys: StreamKeys) -> None:
    async with make() as bridge:
        with client.pubsub() as pushes:  # type: ignore[no-untyped-call]  # redis-py's
            pushes.subscribe(keys.stream("r"))
            assert pushes.get_message(timeout=20)
            for size, kind in ((10, b"event"), (70_000, b"tail"), (10, b"event")):
                await bridge.publish("r", "n", "x" * size)
                await bridge.flush()
                message: Any = pushes.get_message(timeout=20)
                assert message["data"].split()[0] == kind
                assert (len(message["data"]) > size) == (kind == b"event")


async def test_a_message_that_comes_again_is_not_news(make: Make, client: redis.Redis, keys: StreamKeys) -> None:
    async with make(check_interval_seconds=60) as bridge, reading(bridge, "r") as next_item:
        await publish_all(bridge, "r", 1)
        assert (await next_item()).data == 0
        with client.pubsub() as pushes:  # type: ignore[no-untyped-call]  # redis-py's
            pushes.subscribe(keys.stream("r"))
            assert pushes.get_message(timeout=20)
            await publish_all(bridge, "r", 3, start=1)
            message: Any = pushes.get_message(timeout=20)
        assert [(await next_item()).data for _ in range(3)] == [1, 2, 3]
        for _ in range(2):
            client.publish(keys.stream("r"), message["data"])
        await publish_all(bridge, "r", 2, start=4, end=True)
        assert [(await next_item()).data for _ in range(2)] == [4, 5]
        assert await next_item() is END_SENTINEL
        assert numbers(await read(bridge, "r")) == list(range(6))


async def test_who_asks_for_another_stream_is_sent_no_entries(make: Make, keys: StreamKeys, lane: Lane) -> None:
    async with make() as bridge:
        await publish_all(bridge, "r", 3)
        epoch = (await ids(bridge, "r", 1))[0].partition("-")[0]
        for asked, entries in ((epoch, 3), ("", 3), ("17", 0)):
            (reply,) = await lane.call(READ.command(keys.of_run("r"), ("0", asked, 10, 10_000)))
            assert len(reply) == 7 + entries
