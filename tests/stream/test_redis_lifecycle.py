"""What closes, withdraws and is cancelled while the server is slow to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from deerflow_replica._drivers.embedded import EmbeddedValkey
from deerflow_replica._drivers.redis import Connection, Lane, RedisServer
from deerflow_replica.errors import StreamUnavailableError
from deerflow_replica.stream import RedisStreamBridge, StreamEvent
from deerflow_replica.stream.reads import Reads
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.testing._stream_common import (
    DEADLINE_SECONDS,
    numbers,
    placed,
    publish_all,
    read,
    reading,
    until,
)
from proxy import cutting_proxy

pytestmark = pytest.mark.anyio
Make = Callable[..., RedisStreamBridge]
# A machine that is busy is not away.
PATIENT: dict[str, Any] = {"connect_timeout_seconds": 60.0, "close_timeout_seconds": 60.0}


@pytest.fixture
def make(redis_url: str, key_prefix: str) -> Make:
    return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.3, **PATIENT)


async def test_what_was_withdrawn_while_the_server_was_asked_is_not_stored(make: Make, redis_url: str) -> None:
    async def is_asked_in_time(seconds: float) -> bool:
        name = f"r{seconds}"
        async with (
            cutting_proxy(redis_url) as proxy,
            make(redis_url=proxy.url, ack="server", publish_timeout_seconds=seconds) as bridge,
            make() as other,
        ):
            await publish_all(other, name, 1)
            proxy.is_refusing = True
            proxy.cut()
            with pytest.raises(StreamUnavailableError):
                await bridge.publish(name, "n", 1)  # may have been sent: it stays
            withdrawn = asyncio.ensure_future(bridge.publish(name, "n", "withdrawn"))
            await asyncio.sleep(0)
            accepted = proxy.accepted
            proxy.flows.clear()
            proxy.is_refusing = False
            with pytest.raises(StreamUnavailableError):
                await withdrawn
            is_asked = proxy.accepted > accepted
            proxy.flows.set()
            await until(lambda: bridge.stats().pending_events == 0)
            assert bridge.stats().pending_bytes == 0
            await other.publish_end(name)
            assert numbers(await read(other, name)) == [0, 1]
        return is_asked

    assert await for_one_of((0.8, 8.0), is_asked_in_time)


async def test_what_was_never_sent_leaves_no_trace(make: Make, redis_url: str) -> None:
    async def is_stored_in_time(seconds: float) -> bool:
        name = f"r{seconds}"
        proxy.is_refusing = True
        bridge = make(redis_url=proxy.url, ack="server", publish_timeout_seconds=seconds)
        with pytest.raises(StreamUnavailableError):
            await bridge.publish(name, "n", "never sent")
        assert (bridge.stats().pending_events, bridge.stats().published) == (0, 0)
        proxy.is_refusing = False
        try:
            await publish_all(bridge, name, 2, end=True)
        except StreamUnavailableError:
            return False
        else:
            assert numbers(await read(bridge, name)) == [0, 1]
            return True
        finally:
            await bridge.close()

    async with cutting_proxy(redis_url) as proxy:
        assert await for_one_of((0.3, 3.0, 30.0), is_stored_in_time)


async def test_close_stores_what_waits_for_room(make: Make) -> None:
    bridge = make(max_pending_events=2)
    waiting = [asyncio.ensure_future(bridge.publish("r", "n", number)) for number in range(20)]
    await asyncio.sleep(0)
    await bridge.close()
    await asyncio.gather(*waiting)
    async with make() as other:
        await other.publish_end("r")
        assert numbers(await read(other, "r")) == list(range(20))


async def test_a_question_that_waits_is_told_of_close(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy:
        bridge = make(redis_url=proxy.url)
        assert not await bridge.stream_exists("r")
        proxy.flows.clear()
        questions = [
            asyncio.ensure_future(question)
            for question in (bridge.stream_exists("r"), bridge.end_reason("r"), bridge.cleanup("r"))
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await bridge.close()
        for outcome in await asyncio.gather(*questions, return_exceptions=True):
            assert isinstance(outcome, StreamUnavailableError)
        assert bridge.stats().connections == 0


async def test_a_cancelled_close_frees_everything(make: Make, redis_url: str) -> None:
    before = asyncio.all_tasks()
    async with cutting_proxy(redis_url) as proxy:
        bridge = make(redis_url=proxy.url, close_timeout_seconds=60)
        async with reading(bridge, "r") as next_item:
            await publish_all(bridge, "r", 1)
            await next_item()
            proxy.flows.clear()
            await bridge.publish("r", "n", 1)
            closing = asyncio.ensure_future(bridge.close())
            for _ in range(5):
                await asyncio.sleep(0)
                closing.cancel()
            await asyncio.wait([closing])
        await until(lambda: bridge.stats().connections == 0)
    await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.parametrize("count", [1, 50, 300, 1000])
async def test_publishing_and_reading_while_it_closes_ends_every_call(make: Make, count: int) -> None:
    bridge = make()

    async def publish() -> None:
        while True:
            await bridge.publish("r", "n", bridge.stats().published)

    work = [
        asyncio.ensure_future(publish()),
        asyncio.ensure_future(read(bridge, "r")),
        asyncio.ensure_future(read(bridge, "nothing")),
    ]
    await until(lambda: bridge.stats().published >= count)
    await bridge.close()
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        assert isinstance(outcome, StreamUnavailableError)
    async with make(queue_maxsize=1) as other:
        await other.publish_end("r")
        last = (await read(other, "r"))[-2]
        assert isinstance(last, StreamEvent)
        assert last.data == bridge.stats().published - 1


async def test_a_burst_takes_few_trips(make: Make) -> None:
    with EmbeddedValkey() as server, redis.Redis.from_url(server.url) as client:
        async with make(redis_url=server.url) as bridge:
            await publish_all(bridge, "r", 1)
            client.config_resetstat()
            for number in range(1000):
                await bridge.publish("r", "n", number)
            await bridge.publish_end("r")
            found: Any = client.info("commandstats")
            assert found["cmdstat_evalsha"]["calls"] <= 1000 * 0.1


async def test_readers_that_are_cancelled_cost_no_connection(make: Make, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        async with make() as bridge, reading(bridge, "stays") as stays:
            await stays(beats=True)
            await placed(bridge, "stays")
            received: Any = client.info("stats")
            for number in range(50):
                reader = asyncio.ensure_future(read(bridge, f"r{number % 7}"))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                reader.cancel()
                await asyncio.wait([reader])
            await publish_all(bridge, "stays", 1)
            assert (await stays()).data == 0
            now: Any = client.info("stats")
            assert now["total_connections_received"] == received["total_connections_received"]
            assert bridge.stats().subscribers == 1


@pytest.mark.parametrize("ack", ["pipelined", "server"])
async def test_end_and_flush_wait_for_the_server_and_a_pipelined_publish_does_not(
    make: Make, redis_url: str, ack: str
) -> None:
    async with cutting_proxy(redis_url) as proxy, make(redis_url=proxy.url, ack=ack) as bridge:
        proxy.flows.clear()
        calls = [
            asyncio.ensure_future(call)
            for call in (bridge.publish("r", "n", 0), bridge.flush("r"), bridge.flush(), bridge.publish_end("r"))
        ]
        done, _ = await asyncio.wait(calls, timeout=0.2)
        assert done == ({calls[0]} if ack == "pipelined" else set())
        proxy.flows.set()
        await asyncio.gather(*calls)


async def test_no_cancellation_is_lost_while_a_borrowed_client_sends(redis_url: str) -> None:
    """`asyncio.wait_for`, by which the driver bounds what it sends, drops one that comes at the wrong moment."""
    borrowed = AsyncRedis.from_url(redis_url, socket_timeout=5)
    server = RedisServer(url=None, client=borrowed, timeout_seconds=60)
    lane = Lane(server, [])
    for steps in range(30):
        await lane.call(("PING",))
        asking = asyncio.ensure_future(lane.call(("PING",)))
        for _ in range(steps):
            await asyncio.sleep(0)
        if not asking.cancel():
            break
        await asyncio.wait([asking])
        assert asking.cancelled(), steps
    assert borrowed.connection_pool.connection_kwargs["socket_timeout"] == 5
    await lane.close()
    await borrowed.aclose()


@pytest.mark.parametrize("push", ["pubsub", "xread"])
async def test_closing_ends_all_tasks_also_when_the_driver_loses_their_cancellation(
    make: Make, push: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `asyncio.wait_for` of Python 3.11 does when what it waits for is done at that moment."""
    before = asyncio.all_tasks()
    for of, name in ((Reads, "wanted"), (Connection, "ask"), (Connection, "read")):
        monkeypatch.setattr(of, name, _losing_cancellations(getattr(of, name)))
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with make(push=push) as bridge, reading(bridge, "r") as next_item:
            await bridge.publish("r", "n", 0)
            await next_item()
        assert asyncio.all_tasks() == before


def _losing_cancellations(work: Callable[..., Any]) -> Callable[..., Any]:
    async def losing(*arguments: Any, **named: Any) -> Any:
        call = asyncio.ensure_future(work(*arguments, **named))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            return await call

    return losing
