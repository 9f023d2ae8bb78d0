"""Lost replies, killed connections, a server that goes away and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import redis

from deerflow_replica._drivers.embedded import EmbeddedValkey
from deerflow_replica.errors import StreamUnavailableError
from deerflow_replica.stream import END_SENTINEL, HEARTBEAT_SENTINEL, RedisStreamBridge
from deerflow_replica.testing._stream_common import numbers, publish_all, read, reading, until
from proxy import CuttingProxy, cutting_proxy

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
Push = Literal["pubsub", "xread"]
Make = Callable[..., RedisStreamBridge]


@pytest.fixture
def make(redis_url: str, key_prefix: str, push: Push) -> Make:
    return partial(
        RedisStreamBridge,
        redis_url=redis_url,
        key_prefix=key_prefix,
        push=push,
        check_interval_seconds=0.3,
        queue_maxsize=5000,
    )


async def _publish_under(
    bridge: RedisStreamBridge, disturb: Callable[[], None], count: int = 600, *, every: int = 40
) -> None:
    for number in range(count):
        await bridge.publish("r", "n", number)
        if number % every == every // 2:
            disturb()
            await until(lambda: not bridge.stats().pending_events)
    await bridge.publish_end("r")


@pytest.mark.parametrize("ack", ["pipelined", "server"])
async def test_killed_connections_lose_nothing(make: Make, redis_url: str, ack: str) -> None:
    with redis.Redis.from_url(redis_url) as client:

        def kill() -> None:
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)

        # The check is too far off to help: what brings everything back is the new connection.
        async with make(ack=ack) as writer, make(check_interval_seconds=600) as reader:
            found = asyncio.ensure_future(read(reader, "r"))
            await until(lambda: reader.stats().subscribers == 1)
            await _publish_under(writer, kill)
            items = await found
            assert numbers(items) == list(range(600))
            assert items[-1] is END_SENTINEL
            assert numbers(await read(writer, "r", "0")) == list(range(600))


@pytest.mark.parametrize("ack", ["pipelined", "server"])
async def test_swallowed_replies_store_nothing_twice(make: Make, redis_url: str, ack: str) -> None:
    async with cutting_proxy(redis_url) as proxy, make(ack=ack, redis_url=proxy.url) as writer, make() as reader:
        async with asyncio.TaskGroup() as swallowing:
            await _publish_under(writer, lambda: _swallow_one(proxy, swallowing), 200)
        assert proxy.swallowed > 0
        assert numbers(await read(reader, "r", "0")) == list(range(200))
        assert writer.stats().retried > 0


def _swallow_one(proxy: CuttingProxy, swallowing: asyncio.TaskGroup) -> None:
    before = proxy.swallowed

    async def until_it_is() -> None:
        await until(lambda: proxy.swallowed > before)
        proxy.swallows_replies = False

    proxy.swallows_replies = True
    swallowing.create_task(until_it_is())


async def test_a_cut_reader_catches_up(make: Make, redis_url: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make() as writer,
        make(redis_url=proxy.url, check_interval_seconds=600) as reader,
    ):
        async with reading(reader, "r") as next_item:
            await publish_all(writer, "r", 1)
            assert (await next_item()).data == 0
            proxy.is_refusing = True
            proxy.cut()
            await publish_all(writer, "r", 50, start=1)
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            proxy.is_refusing = False
            assert [(await next_item()).data for _ in range(50)] == list(range(1, 51))
            await writer.publish_end("r")
            assert await next_item() is END_SENTINEL
        assert reader.stats().reconnects > 0


async def test_a_subscription_begun_while_the_server_is_away_resumes(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy, make() as writer:
        proxy.is_refusing = True
        reader = make(redis_url=proxy.url)
        async with reading(reader, "r") as next_item:
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await publish_all(writer, "r", 3)
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            proxy.is_refusing = False
            assert [(await next_item()).data for _ in range(3)] == [0, 1, 2]
        await reader.close()


async def test_a_server_that_stays_away_ends_the_subscription(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy:
        proxy.is_refusing = True
        reader = make(redis_url=proxy.url, unavailable_after_seconds=0.5)
        with pytest.raises(StreamUnavailableError, match="no contact"):
            await read(reader, "r")
        await reader.close()
        assert reader.stats().connections == 0


@pytest.mark.parametrize("verb", [b"SUBSCRIBE", b"EVALSHA", b"XREAD"])
async def test_connections_that_open_and_break_are_not_made_in_a_storm(
    make: Make, redis_url: str, push: Push, verb: bytes
) -> None:
    async with cutting_proxy(redis_url) as proxy, make() as writer:
        await publish_all(writer, "r", 1)
        proxy.cuts_at = verb
        reader = make(redis_url=proxy.url, unavailable_after_seconds=1.5)
        began = time.monotonic()
        async with reading(reader, "r", heartbeat_interval=2) as next_item:
            if verb == b"EVALSHA" or (push, verb) == ("pubsub", b"SUBSCRIBE"):
                with pytest.raises(StreamUnavailableError, match="no contact"):
                    await next_item()
            else:
                assert (await next_item()).data == 0
                await publish_all(writer, "r", 1, start=1)
                assert (await next_item()).data == 1
                assert await next_item(beats=True) is HEARTBEAT_SENTINEL
        # 0.02 s, 0.04 s, ... 0.5 s: eight in two seconds, on one of the connections, and then two in every second.
        assert proxy.accepted <= 11 + 2 * (time.monotonic() - began)
        await reader.close()


async def test_short_outages_do_not_add_up(make: Make, redis_url: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make() as writer,
        make(redis_url=proxy.url, unavailable_after_seconds=1) as reader,
        reading(reader, "clock", heartbeat_interval=1.2) as tick,
        reading(reader, "r") as next_item,
    ):
        for number in range(3):
            await publish_all(writer, "r", 1, start=number)
            assert (await next_item()).data == number
            await tick(beats=True)
            proxy.cut()


async def test_an_outage_longer_than_the_lease_orphans_nobody(tmp_path: Path, push: Push) -> None:
    with EmbeddedValkey(data_dir=tmp_path / "valkey", settings={"appendfsync": "always"}) as server:
        make = partial(
            RedisStreamBridge, redis_url=server.url, push=push, lease_seconds=5.0, check_interval_seconds=0.2
        )
        async with make() as writer, make() as reader:
            await publish_all(writer, "r", 1)
            async with reading(reader, "r", heartbeat_interval=0.2) as next_item:
                assert (await next_item()).data == 0
                with redis.Redis.from_url(server.url) as client:
                    (lease,) = client.scan_iter("*.owner:*")
                    client.delete(lease)  # as if it had lapsed meanwhile
                await asyncio.to_thread(server.kill)
                for _ in range(5):
                    assert await next_item(beats=True) is HEARTBEAT_SENTINEL
                await asyncio.to_thread(server.restart)
                for _ in range(15):  # longer than half a lease
                    assert await next_item(beats=True) is HEARTBEAT_SENTINEL
                await publish_all(writer, "r", 1, start=1, end=True)
                assert (await next_item()).data == 1
                assert await next_item() is END_SENTINEL
            assert await reader.end_reason("r") == "done"


async def test_a_lease_that_is_missing_for_a_moment_orphans_nobody(make: Make, redis_url: str, key_prefix: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        async with make(lease_seconds=4.0) as writer, make(lease_seconds=4.0, check_interval_seconds=0.05) as reader:
            await publish_all(writer, "r", 1)
            async with reading(reader, "r", heartbeat_interval=0.2) as next_item:
                assert (await next_item()).data == 0
                (lease,) = client.scan_iter(f"{key_prefix}.owner:*")
                client.delete(lease)
                await until(lambda: client.exists(lease))
                for _ in range(12):
                    assert await next_item(beats=True) is HEARTBEAT_SENTINEL


def _looks(client: redis.Redis) -> int:
    """How often the server was asked whether a lease is there."""
    found: Any = client.info("commandstats")
    return int(found["cmdstat_exists"]["calls"])


async def test_only_unbroken_contact_counts_against_an_owner(make: Make, redis_url: str, key_prefix: str) -> None:
    clock = asyncio.get_running_loop().time
    with redis.Redis.from_url(redis_url) as client:
        async with (
            cutting_proxy(redis_url) as proxy,
            make(lease_seconds=4.0) as writer,
            make(redis_url=proxy.url, lease_seconds=4.0, check_interval_seconds=0.05) as reader,
        ):
            await publish_all(writer, "r", 1)
            async with reading(reader, "r", heartbeat_interval=0.2) as next_item:
                assert (await next_item()).data == 0
                await writer.close()  # renews no more
                client.delete(*client.scan_iter(f"{key_prefix}.owner:*"))
                looks = _looks(client)
                await until(lambda: _looks(client) > looks)
                proxy.is_refusing = True
                proxy.cut()
                for _ in range(12):
                    assert await next_item(beats=True) is HEARTBEAT_SENTINEL
                proxy.is_refusing = False
                began = clock()
                assert await next_item() is END_SENTINEL
                assert clock() - began >= 1.9
