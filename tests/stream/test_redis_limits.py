"""What a bridge with a server keeps, on the server and here, and what its counts say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from deerflow_replica._drivers.embedded import EmbeddedValkey
from deerflow_replica.errors import ConfigError, StreamEndedError, StreamError
from deerflow_replica.stream import END_SENTINEL, HEARTBEAT_SENTINEL, RedisStreamBridge, StreamEvent, StreamGap
from deerflow_replica.stream.base import REMEMBERED_ENDS
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.testing._stream_common import ids, numbers, publish_all, read, reading, until
from proxy import cutting_proxy

pytestmark = pytest.mark.anyio
Make = Callable[..., RedisStreamBridge]
# A machine that is busy is not away.
PATIENT: dict[str, Any] = {"connect_timeout_seconds": 60.0, "close_timeout_seconds": 60.0}


@pytest.fixture
def make(redis_url: str, key_prefix: str) -> Make:
    return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.3, **PATIENT)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        yield made


async def test_the_server_keeps_no_more_than_the_bytes_whatever_is_young(
    make: Make, client: redis.Redis, key_prefix: str
) -> None:
    async with make(max_stream_bytes=100_000) as bridge:
        await publish_all(bridge, "r", 100)
        for number in range(200):
            await bridge.publish("r", "n", str(number) + "x" * 10_000)
        await bridge.flush()
        assert client.xlen(f"{key_prefix}:r") == 9
        known = await ids(bridge, "r", 300)
        assert await read(bridge, "r", "0") == [StreamGap("0", known[291], known[299])]


async def test_the_server_drops_what_is_trimmed_and_no_longer_young(
    make: Make, client: redis.Redis, key_prefix: str
) -> None:
    async with make(queue_maxsize=5) as bridge, reading(bridge, "clock", heartbeat_interval=1.1) as tick:
        await asyncio.gather(*(bridge.publish("r", "n", number) for number in range(200)))  # in one trip
        await bridge.flush()
        assert client.xlen(f"{key_prefix}:r") == 200
        for _ in range(2):
            await tick(beats=True)
            await publish_all(bridge, "r", 1)
        assert client.xlen(f"{key_prefix}:r") == 5


@pytest.mark.parametrize("size", [10, 100_000])
async def test_who_is_attached_elsewhere_reconnects_into_a_burst_without_a_gap(
    make: Make, redis_url: str, size: int, push: str
) -> None:
    async def is_back_in_time(attempt: float) -> bool:
        name = f"r{attempt}"
        async with (
            cutting_proxy(redis_url) as proxy,
            make(queue_maxsize=2, push=push) as writer,
            make(redis_url=proxy.url, check_interval_seconds=600, push=push) as reader,
            reading(reader, name) as next_item,
        ):
            await writer.publish(name, "n", "x" * size)
            assert len((await next_item()).data) == size
            await until(lambda: proxy.link(b"SUBSCRIBE" if push == "pubsub" else b"XREAD"))
            proxy.cut()
            for _ in range(100):
                await writer.publish(name, "n", "x" * size)
            await writer.publish_end(name)
            seen = [item async for item in _to_the_end(next_item)]
            assert reader.stats().reconnects
            assert all(len(item.data) == size for item in seen[:-1])
            return seen[-1] is END_SENTINEL and len(seen) == 101

    # The server spares what is younger than a second: time enough, unless the machine stands still.
    assert await for_one_of((1, 2, 3), is_back_in_time)


async def _to_the_end(next_item: Callable[[], Any]) -> AsyncIterator[Any]:
    while isinstance(item := await next_item(), StreamEvent) and item is not END_SENTINEL:
        yield item
    yield item


async def test_who_was_away_for_longer_gets_one_gap(make: Make, redis_url: str, push: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make(queue_maxsize=3, push=push) as writer,
        make(redis_url=proxy.url, push=push) as reader,
        reading(writer, "clock", heartbeat_interval=1.1) as tick,
        reading(reader, "r") as next_item,
    ):
        await publish_all(writer, "r", 1)
        assert (await next_item()).data == 0
        proxy.is_refusing = True
        proxy.cut()
        for _ in range(3):
            await publish_all(writer, "r", 10)
            await tick(beats=True)
        proxy.is_refusing = False
        known = await ids(writer, "r", 31)
        assert await next_item() == StreamGap(known[0], known[28], known[30])
        with pytest.raises(StopAsyncIteration):
            await next_item()
        assert reader.stats().gaps == 1


async def test_a_clean_up_survives_the_process_that_ordered_it(
    make: Make, client: redis.Redis, key_prefix: str
) -> None:
    async with make() as bridge:
        for number in range(3):
            await bridge.publish("r", "n", number)
        await bridge.cleanup("r", delay=600)
    keys = (f"{key_prefix}:r", f"{key_prefix}.meta:{{{key_prefix}:r}}")
    async with make() as other:
        assert numbers(await read(other, "r", items=3)) == [0, 1, 2]
        await other.publish("r", "n", 3)
        await other.flush()
        assert all(0 < int(client.pttl(key)) <= 600_000 for key in keys)
        for key in keys:
            client.pexpire(key, 1)  # its time has come
        await until(lambda: not client.exists(*keys))
        assert not await other.stream_exists("r")


async def test_publishing_does_not_put_a_clean_up_off(make: Make, client: redis.Redis, key_prefix: str) -> None:
    async with make(stream_ttl_seconds=1000.0) as bridge:
        await publish_all(bridge, "r", 1)
        await bridge.cleanup("r", delay=600)
        # The time to live is nearly over: without a clean-up it would begin anew.
        client.hset(f"{key_prefix}.meta:{{{key_prefix}:r}}", "expires_at", 0)
        await publish_all(bridge, "r", 1, start=1)
        assert 0 < int(client.pttl(f"{key_prefix}:r")) <= 600_000


async def test_a_deletion_is_told_at_once(redis_url: str, key_prefix: str) -> None:
    options: dict[str, Any] = {"redis_url": redis_url, "key_prefix": key_prefix, "check_interval_seconds": 600}
    async with RedisStreamBridge(**options) as other, RedisStreamBridge(**options) as reader:
        await publish_all(other, "r", 1)
        async with reading(reader, "r") as next_item:
            event = await next_item()
            await other.cleanup("r")
            assert await next_item() == StreamGap(event.id, None, None)


async def test_a_process_holds_no_more_than_its_readers_may_need(make: Make, push: str) -> None:
    async with (
        make(push=push, queue_maxsize=10_000) as writer,
        make(push=push, max_stream_bytes=100_000) as reader,
        reading(reader, "r") as next_item,
    ):
        for start in range(0, 1200, 60):
            await publish_all(writer, "r", 60, start=start)
            assert [(await next_item()).data for _ in range(60)] == list(range(start, start + 60))
        held = reader._feed.hub.topics["r"].ring  # what it holds shows nowhere else
        assert held is not None
        assert held.tail - held.low < 600  # all were read
        for number in range(30):
            await writer.publish("r", "n", str(number) + "x" * 10_000)
        await writer.publish_end("r")
        await until(lambda: held.ended)
        assert 0 < held.stored_bytes <= 100_000
        assert [(await next_item()).data[:2] for _ in range(30)][-1] == "29"
        assert await next_item() is END_SENTINEL


async def test_a_deletion_is_told_at_once_where_it_was_ordered(make: Make, push: str) -> None:
    async with make(push=push, check_interval_seconds=600) as bridge, reading(bridge, "r") as next_item:
        await publish_all(bridge, "r", 1)
        event = await next_item()
        await bridge.cleanup("r")
        assert await next_item() == StreamGap(event.id, None, None)


async def test_more_than_a_page_is_read_at_once(make: Make, push: str) -> None:
    async with make(queue_maxsize=2000) as writer:
        await publish_all(writer, "r", 1500, end=True)
    async with make(push=push, check_interval_seconds=600) as reader:
        assert numbers(await read(reader, "r")) == list(range(1500))


async def test_everything_on_the_server_goes_by_itself() -> None:
    with EmbeddedValkey() as server, redis.Redis.from_url(server.url) as client:
        options: dict[str, Any] = {"redis_url": server.url, "key_prefix": "p", "stream_ttl_seconds": 60}
        bridge = RedisStreamBridge(**options, lease_seconds=60, check_interval_seconds=0.1)
        waiting = asyncio.ensure_future(read(bridge, "nothing", heartbeat_interval=0.1, items=4))
        for run in ("a", "b", "c", "{d}", "e:f"):
            await publish_all(bridge, run, 3, end=run == "b")
            await bridge.stream_exists(run)
            assert await read(bridge, run, items=1)
        await bridge.cleanup("c", delay=30)
        await bridge.cleanup("nothing", delay=5)
        assert await waiting == [HEARTBEAT_SENTINEL] * 4
        keys = [key.decode() for key in client.scan_iter("*")]
        assert len(keys) == 2 * 5 + 1
        assert all(key.startswith(("p:", "p.meta:{", "p.owner:")) for key in keys)
        await bridge.close()
        assert client.dbsize() == len(keys)
        assert all(0 < int(client.pttl(key)) <= 60_000 for key in keys)


async def test_ten_thousand_ended_runs_are_remembered(make: Make) -> None:
    async with make(publish_timeout_seconds=600) as bridge:
        await asyncio.gather(*(bridge.publish_end(f"r{number}") for number in range(REMEMBERED_ENDS + 1)))
        with pytest.raises(StreamEndedError):
            await bridge.publish("r1", "n", 0)
        await bridge.publish("r0", "n", 0)  # forgotten here, and refused by the server
        with pytest.raises(StreamEndedError):
            await bridge.flush("r0")


async def test_a_refusal_has_the_servers_word_behind_it(make: Make, client: redis.Redis, key_prefix: str) -> None:
    client.set(f"{key_prefix}:bad", "text", ex=60)
    async with make() as bridge:
        await bridge.publish("bad", "n", 0)
        with pytest.raises(StreamError, match="WRONGTYPE") as caught:
            await bridge.flush("bad")
        assert isinstance(caught.value.__cause__, redis.ResponseError)


async def test_what_a_cancelled_call_left_and_was_refused_is_told_by_the_next(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy, make(redis_url=proxy.url, ack="server") as ours, make() as other:
        await ours.publish("r", "n", 0)
        await other.publish_end("r")
        proxy.flows.clear()
        call = asyncio.ensure_future(ours.publish("r", "n", 1))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        proxy.flows.set()
        await until(lambda: not ours.stats().pending_events)
        with pytest.raises(StreamEndedError):
            await ours.publish_end("r")


async def test_a_master_that_became_a_replica_is_looked_up_anew() -> None:
    with EmbeddedValkey() as server, redis.Redis.from_url(server.url) as client:
        async with cutting_proxy(server.url) as proxy, RedisStreamBridge(redis_url=proxy.url) as bridge:
            await publish_all(bridge, "r", 1)
            client.replicaof("127.0.0.1", 1)
            await bridge.publish("r", "n", 1)
            accepted = proxy.accepted
            await until(lambda: proxy.accepted >= accepted + 2)
            assert bridge.stats().pending_events == 1
            client.replicaof("NO", "ONE")
            await bridge.publish_end("r")
            assert numbers(await read(bridge, "r")) == [0, 1]


async def test_counts(make: Make) -> None:
    async with make() as bridge, make() as other:
        assert bridge.stats().connections == 1
        for number in range(70):
            await bridge.publish("r", "n", number)
        pending = bridge.stats()
        assert pending.published == 70
        assert pending.pending_events == 70
        assert pending.pending_bytes == 70 + 10 + 2 * 60
        await bridge.publish_end("r")
        await asyncio.gather(read(bridge, "r"), read(other, "r"), read(other, "r"))
        assert await read(other, "r", "7-7")
        assert (bridge.stats().pending_events, bridge.stats().pending_bytes) == (0, 0)
        assert (bridge.stats().published, other.stats().published) == (70, 0)
        assert (bridge.stats().delivered, other.stats().delivered) == (70, 140)
        assert (bridge.stats().gaps, other.stats().gaps) == (0, 1)
        async with reading(other, "r", "0") as next_item, reading(other, "q") as waits:
            assert (await next_item()).data == 0
            await waits(beats=True)
            assert (other.stats().subscribers, other.stats().topics) == (2, 2)
            await until(lambda: other.stats().connections == 3)  # the last of the readers before may yet be closed
        assert other.stats().subscribers == 0
        for stats in (bridge.stats(), other.stats()):
            assert (stats.retried, stats.reconnects, stats.orphaned) == (0, 0, 0)


TIMES = (
    "publish_timeout_seconds", "connect_timeout_seconds", "close_timeout_seconds", "check_interval_seconds",
    "unavailable_after_seconds", "lease_seconds", "stream_ttl_seconds",
)  # fmt: skip
BOUNDS = (
    "max_pending_events",
    "max_pending_bytes",
    "queue_maxsize",
    "max_event_bytes",
    "max_stream_bytes",
    "live_window",
)


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), float("-inf"), "5", True])
def test_a_time_is_not_negative(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        RedisStreamBridge(**{name: value})
    RedisStreamBridge(**{name: 0})  # type: ignore[arg-type]  # a name of a time


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", [0, -1, 1.5, "5", None, True])
def test_a_bound_is_at_least_one(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        RedisStreamBridge(**{name: value})
    RedisStreamBridge(**{name: 1})  # type: ignore[arg-type]  # a name of a bound


@pytest.mark.parametrize("value", [2, 0, -1, 3.5, "3"])
def test_three_connections_are_the_least(value: Any) -> None:
    with pytest.raises(ConfigError, match="max_connections"):
        RedisStreamBridge(max_connections=value)
    RedisStreamBridge(max_connections=3)


@pytest.mark.parametrize("name", ["push", "ack", "invalid_cursor", "resume_gap"])
@pytest.mark.parametrize("value", ["", "other", None, 5])
def test_a_choice_is_one_of_its_words(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        RedisStreamBridge(**{name: value})


async def test_no_lease_is_no_key_and_no_orphan(make: Make, client: redis.Redis, key_prefix: str) -> None:
    writer = make(lease_seconds=None)
    await publish_all(writer, "r", 1)
    assert not list(client.scan_iter(f"{key_prefix}.owner:*"))
    await writer.close()
    async with make(lease_seconds=0.2, check_interval_seconds=0.1) as reader:
        async with reading(reader, "r", heartbeat_interval=0.8) as next_item:
            assert (await next_item()).data == 0
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
        assert await reader.end_reason("r") is None
