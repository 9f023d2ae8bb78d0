"""Connections that break, one at a time and at any byte: stored once, in order, and nobody misses anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import pytest
import redis

from deerflow_replica.stream import END_SENTINEL, RedisStreamBridge
from deerflow_replica.testing._stream_common import numbers, publish_all, read, reading, until
from proxy import CuttingProxy, Link, cutting_proxy

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
        queue_maxsize=5000,
    )


@asynccontextmanager
async def _through(
    make: Make, redis_url: str, **options: object
) -> AsyncIterator[tuple[CuttingProxy, RedisStreamBridge]]:
    async with cutting_proxy(redis_url) as proxy, make(redis_url=proxy.url, **options) as bridge:
        yield proxy, bridge


async def _link(proxy: CuttingProxy, verb: bytes) -> Link:
    found: list[Link] = []

    def look() -> bool:
        link = proxy.link(verb)
        found.extend([link] if link else [])
        return link is not None

    await until(look)
    return found[-1]


@pytest.mark.parametrize("ack", ["pipelined", "server"])
@pytest.mark.parametrize("let_through", [0, 70, 3000, 4000])
async def test_a_batch_cut_at_any_byte_is_stored_once(make: Make, redis_url: str, ack: str, let_through: int) -> None:
    async with _through(make, redis_url, ack=ack) as (proxy, writer), make() as reader:
        found = asyncio.ensure_future(read(reader, "r"))
        await publish_all(writer, "r", 1)
        link = await _link(proxy, b"EVAL")
        link.requests_left = let_through
        await asyncio.gather(*(writer.publish("r", "n", number) for number in range(1, 400)))
        await writer.publish_end("r")
        assert numbers(await found) == list(range(400))
        assert link not in proxy.links
        assert numbers(await read(reader, "r", "0")) == list(range(400))


@pytest.mark.parametrize("let_through", [0, 1, 12])
async def test_a_reply_cut_at_any_byte_stores_nothing_twice(make: Make, redis_url: str, let_through: int) -> None:
    async with _through(make, redis_url) as (proxy, writer), make() as reader:
        await publish_all(writer, "r", 1)
        for start in range(1, 60, 20):
            (await _link(proxy, b"EVAL")).replies_left = let_through
            await publish_all(writer, "r", 20, start=start)
        await writer.publish_end("r")
        assert proxy.accepted >= 4
        assert numbers(await read(reader, "r", "0")) == list(range(61))


async def test_the_reply_to_end_is_lost(make: Make, redis_url: str) -> None:
    async with _through(make, redis_url) as (proxy, writer), make() as reader:
        await publish_all(writer, "r", 3)
        (await _link(proxy, b"EVAL")).swallows_replies = True
        await writer.publish_end("r", reason="why")
        assert proxy.swallowed == 1
        assert numbers(await read(reader, "r")) == [0, 1, 2]
        assert await reader.end_reason("r") == "why"


@pytest.mark.parametrize("verb", [b"SUBSCRIBE", b"EVAL"])
@pytest.mark.parametrize("let_through", [0, 1, 300])
async def test_each_connection_of_a_reader_may_break(
    make: Make, redis_url: str, push: str, verb: bytes, let_through: int
) -> None:
    verb = b"XREAD" if (push, verb) == ("xread", b"SUBSCRIBE") else verb
    async with _through(make, redis_url, check_interval_seconds=600) as (proxy, reader), make() as writer:
        async with reading(reader, "r") as next_item:
            await publish_all(writer, "r", 1)
            assert (await next_item()).data == 0
            for start in range(1, 200, 50):
                (await _link(proxy, verb)).replies_left = let_through
                other = asyncio.ensure_future(read(reader, f"other-{start}", items=1))  # asks both connections
                await publish_all(writer, "r", 50, start=start)
                await publish_all(writer, f"other-{start}", 1)
                assert [(await next_item()).data for _ in range(50)] == list(range(start, start + 50))
                assert numbers(await other) == [0]
            await writer.publish_end("r")
            assert await next_item() is END_SENTINEL
        # So little comes by the other side that it may never be that much.
        assert reader.stats().reconnects > 0 or (verb, let_through) == (b"EVAL", 300)
        assert reader.stats().gaps == 0


async def test_late_replies_and_pushes_in_pieces_change_nothing(make: Make, redis_url: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make(redis_url=proxy.url, connect_timeout_seconds=60) as writer,
        make(redis_url=proxy.url, check_interval_seconds=0.05, connect_timeout_seconds=60) as reader,
    ):
        found = asyncio.ensure_future(read(reader, "r"))
        await until(lambda: reader.stats().connections >= 2)
        proxy.reply_delay_seconds = 0.1  # longer than the pushes are waited for before the server is asked
        for number in range(300):
            await writer.publish("r", "n", number)
            if number % 50 == 0:
                await writer.flush()
        await writer.publish_end("r")
        assert numbers(await found) == list(range(300))
        assert writer.stats().retried == 0
        assert reader.stats().reconnects == 0


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_connections_killed_while_many_subscribe_and_publish(
    make: Make, redis_url: str, push: str, kind: str
) -> None:
    runs = [f"r{number}" for number in range(40)]
    with redis.Redis.from_url(redis_url) as client:
        async with make() as writer, make(check_interval_seconds=600) as reader:
            found = []
            for run in runs:
                found.append(asyncio.ensure_future(read(reader, run)))
                await writer.publish(run, "n", 0)
                if len(found) % 4 == 0:
                    client.client_kill_filter(_type=kind, skipme=True)
                    await writer.flush()
            for number in range(1, 20):
                await asyncio.gather(*(writer.publish(run, "n", number) for run in runs))
                client.client_kill_filter(_type=kind, skipme=True)
                await writer.flush()
            await asyncio.gather(*map(writer.publish_end, runs))
            for items in await asyncio.gather(*found):
                assert numbers(items) == list(range(20))
                assert items[-1] is END_SENTINEL
            assert reader.stats().gaps == 0
            if (push, kind) != ("xread", "pubsub"):
                assert reader.stats().reconnects + writer.stats().retried > 0
