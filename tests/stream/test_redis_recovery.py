"""A server that forgot something, whose clock was set back, or that says what nobody expects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from deerflow_replica._drivers.embedded import EmbeddedValkey
from deerflow_replica.errors import StreamEndedError, StreamError
from deerflow_replica.stream import END_SENTINEL, HEARTBEAT_SENTINEL, RedisStreamBridge, StreamGap
from deerflow_replica.testing._stream_common import ids, numbers, placed, publish_all, read, reading, until
from proxy import cutting_proxy

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
Make = Callable[..., RedisStreamBridge]


@pytest.fixture
def make(redis_url: str, key_prefix: str, push: Any) -> Make:
    return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, push=push, check_interval_seconds=0.2)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def keys(key_prefix: str) -> tuple[str, str]:
    """The stream of run "r" and what is kept beside it."""
    return f"{key_prefix}:r", f"{key_prefix}.meta:{{{key_prefix}:r}}"


def _saved(client: redis.Redis, keys: tuple[str, str]) -> Callable[[], None]:
    """What brings the run back to where it is now: a server restarted without its last second of writes."""
    dumps = {key: client.dump(key) for key in keys}

    def restore() -> None:
        with client.pipeline() as pipeline:
            for key, dump in dumps.items():
                pipeline.restore(key, 60_000, dump, replace=True)  # type: ignore[arg-type]  # bytes, as DUMP gave them
            pipeline.execute()

    return restore


async def test_a_reader_of_what_the_server_forgot_gets_a_gap(
    make: Make, client: redis.Redis, keys: tuple[str, str]
) -> None:
    async with make() as writer, make() as reader, reading(reader, "r") as next_item:
        await publish_all(writer, "r", 5)
        restore = _saved(client, keys)
        await publish_all(writer, "r", 5, start=5)
        known = await ids(writer, "r", 10)
        assert [(await next_item()).data for _ in range(10)] == list(range(10))
        restore()
        assert await next_item() == StreamGap(known[9], None, None)


async def test_the_check_finds_those_of_many_that_changed(make: Make, client: redis.Redis, key_prefix: str) -> None:
    async with make() as bridge, AsyncExitStack() as stack:
        runs = [await stack.enter_async_context(reading(bridge, f"r{number}")) for number in range(7)]
        for number, next_item in enumerate(runs):
            await publish_all(bridge, f"r{number}", 1, start=number)
            assert (await next_item()).data == number
        client.delete(f"{key_prefix}:r2", f"{key_prefix}:r5")
        assert all([isinstance(await runs[number](), StreamGap) for number in (2, 5)])
        for number in (0, 1, 3, 4, 6):
            await bridge.publish_end(f"r{number}")
            assert await runs[number]() is END_SENTINEL
        assert bridge.stats().gaps == 2


async def test_a_writer_whose_events_the_server_forgot_begins_anew(
    make: Make, client: redis.Redis, keys: tuple[str, str]
) -> None:
    async with make(check_interval_seconds=600) as writer, make(check_interval_seconds=600) as reader:
        await publish_all(writer, "r", 5)
        restore = _saved(client, keys)
        await publish_all(writer, "r", 5, start=5)
        known = await ids(writer, "r", 10)
        async with reading(reader, "r", known[8]) as next_item:
            assert (await next_item()).data == 9
            restore()
            await publish_all(writer, "r", 7, start=10, end=True)
            assert await next_item() == StreamGap(known[9], None, None)
        assert client.xlen(keys[0]) == 8  # and nothing of before
        assert isinstance((await read(reader, "r", known[9]))[0], StreamGap)
        assert numbers(await read(reader, "r", "0")) == list(range(10, 17))


async def test_an_end_stays_of_which_the_writer_of_lost_events_knows_nothing(
    make: Make, client: redis.Redis, keys: tuple[str, str]
) -> None:
    async with make() as writer, make() as other:
        await publish_all(writer, "r", 2)
        restore = _saved(client, keys)
        await publish_all(writer, "r", 2, start=2)
        restore()
        await other.publish_end("r", reason="first")
        with pytest.raises(StreamEndedError):
            await publish_all(writer, "r", 1, start=4)
        assert numbers(await read(other, "r")) == [0, 1]
        assert await other.end_reason("r") == "first"


@pytest.mark.parametrize("before", ["end", "cleanup"])
async def test_a_stream_made_anew_takes_nothing_over(
    make: Make, client: redis.Redis, keys: tuple[str, str], before: str
) -> None:
    """Its first entries were evicted, and what is kept beside them was not."""
    async with make(stream_ttl_seconds=100) as writer, make(stream_ttl_seconds=100) as other:
        await publish_all(writer, "r", 1, end=before == "end")
        if before == "cleanup":
            await writer.cleanup("r", delay=50)
        client.delete(keys[0])
        for number in range(2):
            await publish_all(other, "r", 1, start=number)
        assert await other.end_reason("r") is None
        assert numbers(await read(other, "r", items=2)) == [0, 1]
        assert int(client.pttl(keys[0])) > 60_000


async def test_a_stream_made_anew_by_another_writer_is_left_to_it(make: Make) -> None:
    async with make() as ours, make() as other:
        await publish_all(ours, "r", 5)
        await other.cleanup("r")
        await publish_all(other, "r", 1)
        await publish_all(ours, "r", 1, start=1, end=True)
        assert numbers(await read(other, "r")) == [0, 1]


async def test_a_clock_that_was_set_back_ends_in_a_gap_too(
    make: Make, client: redis.Redis, keys: tuple[str, str]
) -> None:
    async with make() as bridge, reading(bridge, "r") as next_item:
        await publish_all(bridge, "r", 1)
        event = await next_item()
        client.delete(keys[0])
        client.hset(keys[1], "epoch", 1000)
        client.xadd(keys[0], {"kind": "event", "event": "n", "data": "7", "w": "x", "b": "1"}, id="1000-0")
        client.expire(keys[0], 60)
        assert await next_item() == StreamGap(event.id, None, None)
        assert numbers(await read(bridge, "r", items=1)) == [7]


async def test_a_message_of_somebody_else_disturbs_nobody(
    make: Make, client: redis.Redis, keys: tuple[str, str]
) -> None:
    async with make() as bridge, reading(bridge, "r") as next_item:
        assert await next_item(beats=True) is HEARTBEAT_SENTINEL
        await placed(bridge, "r")
        for junk in (b"", b"junk", b"event", b"event x y z 1,2", b"\xff\xfe", b"event 1 0 0 v,9\n", b"gone\n"):
            client.publish(keys[0], junk)
        await publish_all(bridge, "r", 2, end=True)
        assert [(await next_item()).data for _ in range(2)] == [0, 1]
        assert await next_item() is END_SENTINEL


async def test_a_key_that_became_something_else_under_a_reader_ends_it(
    make: Make, client: redis.Redis, keys: tuple[str, str]
) -> None:
    async with make() as bridge, reading(bridge, "r") as next_item:
        await publish_all(bridge, "r", 1)
        assert (await next_item()).data == 0
        client.set(keys[0], "text", ex=60)
        with pytest.raises(StreamError, match="WRONGTYPE"):
            await next_item()


async def test_an_orphan_is_ended_with_the_bounds_of_its_writer(
    make: Make, client: redis.Redis, keys: tuple[str, str]
) -> None:
    writer = make(lease_seconds=0.3, queue_maxsize=5, stream_ttl_seconds=100)
    await publish_all(writer, "r", 5)
    await writer.close()
    async with make(lease_seconds=0.3, queue_maxsize=2, stream_ttl_seconds=5000, max_stream_bytes=1) as reader:
        assert numbers(await read(reader, "r")) == list(range(5))
        assert numbers(await read(reader, "r", "0")) == list(range(5))
        assert await reader.end_reason("r") == "orphaned"
        assert 0 < int(client.pttl(keys[0])) <= 100_000


async def test_a_reader_that_may_not_write_ends_no_orphan_and_reads_on(
    make: Make, client: redis.Redis, redis_url: str, key_prefix: str
) -> None:
    user = f"reader-{key_prefix.replace(':', '-')}"
    client.acl_setuser(user, enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all", "-@write"])
    borrowed = AsyncRedis.from_url(redis_url, username=user, password="any")  # noqa: S106  # any will do
    try:
        writer, other = make(lease_seconds=0.3), make()
        await publish_all(writer, "r", 1)
        await writer.close()
        async with other, make(redis_url=None, client=borrowed, lease_seconds=0.3) as reader:
            async with reading(reader, "r", heartbeat_interval=0.3) as next_item:
                assert (await next_item()).data == 0
                for _ in range(4):
                    assert await next_item(beats=True) is HEARTBEAT_SENTINEL
                await publish_all(other, "r", 1, start=1, end=True)
                assert (await next_item()).data == 1
                assert await next_item() is END_SENTINEL
            assert reader.stats().orphaned == 0
    finally:
        await borrowed.aclose()
        client.acl_deluser(user)


async def test_a_short_check_interval_does_not_doubt_a_slow_server(make: Make, redis_url: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make(redis_url=proxy.url, check_interval_seconds=0.01, connect_timeout_seconds=60) as bridge,
    ):
        async with reading(bridge, "r", heartbeat_interval=0.3) as next_item:
            await publish_all(bridge, "r", 1)
            assert (await next_item()).data == 0
            proxy.flows.clear()
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            proxy.flows.set()
            await publish_all(bridge, "r", 1, start=1)
            assert (await next_item()).data == 1
        assert bridge.stats().reconnects == 0


async def test_flushall_in_mid_stream_is_a_gap_and_a_new_stream(make: Make) -> None:
    with EmbeddedValkey() as server, redis.Redis.from_url(server.url) as client:
        async with make(redis_url=server.url) as bridge, reading(bridge, "r") as next_item:
            await publish_all(bridge, "r", 3)
            events = [await next_item() for _ in range(3)]
            client.flushall()
            await publish_all(bridge, "r", 2, start=3, end=True)
            assert await next_item() == StreamGap(events[-1].id, None, None)
            assert numbers(await read(bridge, "r")) == [3, 4]


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_ids_that_another_writer_was_given_again_are_a_gap(
    make: Make, client: redis.Redis, keys: tuple[str, str], lost: int
) -> None:
    async with (
        make() as writer,
        make() as other,
        make() as reader,
        reading(reader, "r") as next_item,
    ):
        await publish_all(writer, "r", 5)
        restore = _saved(client, keys)
        await publish_all(writer, "r", lost, start=5)
        events = [await next_item() for _ in range(5 + lost)]
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
        restore()
        await other.publish("r", "error", "the producer is gone")
        await other.publish_end("r", reason="error")
        assert await next_item() == StreamGap(events[-1].id, None, None)


async def test_another_server_behind_one_connection_is_compared(
    make: Make, client: redis.Redis, keys: tuple[str, str], redis_url: str
) -> None:
    """The reader's other connection goes on, and nothing was pushed: only the newest entry tells."""
    async with (
        cutting_proxy(redis_url) as proxy,
        make() as writer,
        make(push="xread") as other,
        make(redis_url=proxy.url) as reader,
        reading(reader, "r") as next_item,
    ):
        await publish_all(writer, "r", 4)
        restore = _saved(client, keys)
        await publish_all(writer, "r", 1, start=4)
        events = [await next_item() for _ in range(5)]
        proxy.flows.clear()
        proxy.cuts_at = b"EXISTS"  # after the check, to which the stream is as it was
        accepted = proxy.accepted
        restore()
        await other.publish_end("r")
        proxy.flows.set()
        await until(lambda: proxy.accepted > accepted)
        proxy.cuts_at = b""
        assert await next_item() == StreamGap(events[-1].id, None, None)
