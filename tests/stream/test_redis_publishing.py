"""What only a bridge with a server has: other processes, its own bounds, refusals of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from deerflow_replica.errors import ConfigError, StreamEndedError, StreamError, StreamUnavailableError
from deerflow_replica.stream import END_SENTINEL, HEARTBEAT_SENTINEL, RedisStreamBridge, StreamEvent, StreamGap
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.testing._stream_common import numbers, publish_all, read, reading, until
from proxy import cutting_proxy

pytestmark = pytest.mark.anyio

Make = Callable[..., RedisStreamBridge]
# A machine that is busy is not away.
PATIENT: dict[str, Any] = {"connect_timeout_seconds": 60.0, "close_timeout_seconds": 60.0}


@pytest.fixture
def make(redis_url: str, key_prefix: str) -> Make:
    return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.3, **PATIENT)


async def test_end_by_another_process_refuses_what_follows(make: Make) -> None:
    async with make() as ours, make() as other:
        await publish_all(ours, "r", 2)
        await other.publish_end("r", reason="stolen")
        await ours.publish("r", "n", 2)
        with pytest.raises(StreamEndedError):
            await ours.publish_end("r")
        with pytest.raises(StreamEndedError):
            await ours.publish("r", "n", 3)
        assert numbers(await read(other, "r")) == [0, 1]
        assert await ours.end_reason("r") == "stolen"


async def test_end_by_another_process_is_told_by_the_call_itself_when_it_waits(make: Make) -> None:
    async with make(ack="server") as ours, make() as other:
        await publish_all(ours, "r", 2)
        await other.publish_end("r")
        with pytest.raises(StreamEndedError):
            await ours.publish("r", "n", 2)
        await ours.publish_end("r")
        assert numbers(await read(other, "r")) == [0, 1]


async def test_end_by_another_process_makes_ours_a_no_op(make: Make) -> None:
    async with make() as ours, make() as other:
        await publish_all(ours, "r", 1)
        await other.publish_end("r", reason="first")
        await ours.publish_end("r", reason="second")
        assert await ours.end_reason("r") == "first"


async def test_two_writers_interleave_each_in_its_own_order(make: Make) -> None:
    async with make() as left, make() as right:

        async def write(bridge: RedisStreamBridge, name: str) -> None:
            for number in range(100):
                await bridge.publish("r", name, number)
            await bridge.flush()

        await asyncio.gather(write(left, "left"), write(right, "right"))
        await left.publish_end("r")
        *events, end = await read(right, "r")
        assert end is END_SENTINEL
        found: dict[str, list[int]] = {"left": [], "right": []}
        for seq, event in enumerate(events):
            assert isinstance(event, StreamEvent)
            assert event.id.endswith(f"-{seq}")
            found[event.event].append(event.data)
        assert found == {"left": list(range(100)), "right": list(range(100))}


async def test_cleanup_elsewhere_reaches_readers_here(make: Make) -> None:
    async with make() as ours, make() as other, reading(ours, "r") as next_item:
        await publish_all(ours, "r", 1)
        event = await next_item()
        await other.cleanup("r")
        assert await next_item() == StreamGap(event.id, None, None)


async def test_deleted_without_a_word_is_found_by_the_check(make: Make, redis_url: str, key_prefix: str) -> None:
    async def is_found_in_time(interval: float) -> bool:
        name = f"r{interval}"
        async with make(check_interval_seconds=interval) as bridge:
            async with reading(bridge, name) as next_item:
                await publish_all(bridge, name, 1)
                event = await next_item()
                with redis.Redis.from_url(redis_url) as client:
                    client.delete(f"{key_prefix}:{name}")
                began = time.monotonic()
                assert await next_item() == StreamGap(event.id, None, None)
                seconds = time.monotonic() - began
            await publish_all(bridge, name, 2, end=True)
            assert numbers(await read(bridge, name)) == [0, 1]
        return seconds < interval + 1.0

    assert await for_one_of((0.3, 3.0, 30.0), is_found_in_time)


async def test_a_deletion_right_after_a_push_is_found_within_an_interval(
    make: Make, redis_url: str, key_prefix: str
) -> None:
    async def is_found_in_time(interval: float) -> bool:
        name = f"r{interval}"
        async with (
            make(check_interval_seconds=interval) as bridge,
            reading(bridge, name, heartbeat_interval=interval + 0.05) as next_item,
        ):
            assert await next_item(beats=True) is HEARTBEAT_SENTINEL  # a check has just been
            await publish_all(bridge, name, 1)
            event = await next_item()
            client.delete(f"{key_prefix}:{name}")
            began = time.monotonic()
            assert await next_item() == StreamGap(event.id, None, None)
            return time.monotonic() - began <= interval * 1.5

    with redis.Redis.from_url(redis_url) as client:
        assert await for_one_of((1.2, 6.0, 18.0), is_found_in_time)


async def test_a_lost_push_is_found_by_the_check(make: Make, redis_url: str, key_prefix: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        async with make() as bridge, reading(bridge, "r") as next_item:
            await publish_all(bridge, "r", 1)
            assert (await next_item()).data == 0
            epoch = client.hget(f"{key_prefix}.meta:{{{key_prefix}:r}}", "epoch")
            assert isinstance(epoch, bytes)
            client.hset(f"{key_prefix}.meta:{{{key_prefix}:r}}", "tail", 1)
            client.xadd(
                f"{key_prefix}:r",
                {"kind": "event", "event": "n", "data": "1", "w": "x", "b": "2"},
                id=f"{epoch.decode()}-1",
            )
            assert (await next_item()).data == 1


async def test_large_events_go_by_reading(make: Make) -> None:
    async with make() as bridge, reading(bridge, "r") as next_item:
        await next_item(beats=True)
        for size in (10, 70_000, 300_000, 5):
            await bridge.publish("r", "n", "x" * size)
        await bridge.publish_end("r")
        assert [len((await next_item()).data) for _ in range(4)] == [10, 70_000, 300_000, 5]
        assert await next_item() is END_SENTINEL


async def test_a_reader_far_behind_is_refilled_from_what_is_retained(make: Make) -> None:
    async with make(queue_maxsize=5000, live_window=10) as bridge, reading(bridge, "r") as next_item:
        await publish_all(bridge, "r", 1)
        assert (await next_item()).data == 0
        await publish_all(bridge, "r", 3000, start=1, end=True)
        assert [(await next_item()).data for _ in range(3000)] == list(range(1, 3001))
        assert await next_item() is END_SENTINEL


@pytest.mark.parametrize("ack", ["pipelined", "server"])
async def test_a_key_of_another_type_fails_that_run_alone(
    make: Make, redis_url: str, key_prefix: str, ack: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{key_prefix}:bad", "text", ex=60)
    async with make(ack=ack) as bridge:
        results = await asyncio.gather(
            *(bridge.publish(run, "n", number) for number in range(5) for run in ("bad", "good")),
            return_exceptions=True,
        )
        if ack == "pipelined":
            with pytest.raises(StreamError, match="WRONGTYPE"):
                await bridge.flush("bad")
            await bridge.flush("bad")
        else:
            assert all(isinstance(result, StreamError) for result in results[::2])
            await bridge.flush("bad")  # all were told
        with pytest.raises(StreamError, match="WRONGTYPE"):
            await bridge.publish_end("bad")
        with pytest.raises(StreamError, match="WRONGTYPE"):
            await read(bridge, "bad")
        await bridge.publish_end("good")
        assert numbers(await read(bridge, "good")) == list(range(5))
        with redis.Redis.from_url(redis_url) as client:
            client.delete(f"{key_prefix}:bad")
        await publish_all(bridge, "bad", 1, end=True)
        assert numbers(await read(bridge, "bad")) == [0]


async def test_a_full_buffer_gives_up_after_the_timeout(make: Make, redis_url: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make(redis_url=proxy.url, max_pending_events=3, publish_timeout_seconds=0.5) as bridge,
        make() as other,
    ):
        proxy.is_refusing = True
        proxy.cut()
        for number in range(3):
            await bridge.publish("r", "n", number)
        assert bridge.stats().pending_events == 3
        with pytest.raises(StreamUnavailableError, match="room"):
            await bridge.publish("r", "n", "lost")
        with pytest.raises(StreamUnavailableError, match="still wait"):
            await bridge.flush()
        proxy.is_refusing = False
        await until(lambda: bridge.stats().pending_events == 0)
        await other.publish_end("r")
        assert numbers(await read(other, "r")) == [0, 1, 2]


async def test_a_full_buffer_waits_in_turn(make: Make, redis_url: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make(redis_url=proxy.url, max_pending_events=3) as bridge,
    ):
        proxy.is_refusing = True
        proxy.cut()
        for number in range(3):
            await bridge.publish("r", "n", number)
        await until(lambda: bridge.stats().retried)
        waiting = [asyncio.ensure_future(bridge.publish("r", "n", number)) for number in range(3, 6)]
        cancelled = asyncio.ensure_future(bridge.publish("r", "n", "cancelled"))
        await asyncio.sleep(0)
        cancelled.cancel()
        proxy.is_refusing = False
        await asyncio.gather(*waiting)
        await until(lambda: bridge.stats().pending_events == 0)
        await bridge.publish_end("r")
        assert numbers(await read(bridge, "r")) == list(range(6))
        assert bridge.stats().retried > 0


async def test_a_publish_that_waits_for_a_lost_server_leaves_no_trace(make: Make, redis_url: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make(redis_url=proxy.url, ack="server", publish_timeout_seconds=0.4) as bridge,
        make() as other,
    ):
        await publish_all(other, "r", 1)
        proxy.is_refusing = True
        proxy.cut()
        with pytest.raises(StreamUnavailableError):
            await bridge.publish("r", "n", 1)  # may have been sent: it stays
        with pytest.raises(StreamUnavailableError):
            await bridge.publish("r", "n", "never sent")
        proxy.is_refusing = False
        await until(lambda: bridge.stats().pending_events == 0)
        await other.publish_end("r")
        assert numbers(await read(other, "r")) == [0, 1]


async def test_close_tells_how_much_was_not_stored(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy:
        bridge = make(redis_url=proxy.url, close_timeout_seconds=0.2)
        await bridge.publish("r", "n", 0)
        await bridge.flush()
        proxy.is_refusing = True
        proxy.cut()
        await bridge.publish("r", "n", 1)
        await bridge.publish("r", "n", 2)
        with pytest.raises(StreamUnavailableError, match="2 events"):
            await bridge.close()
        await bridge.close()
        assert bridge.stats().connections == 0


async def test_close_tells_whoever_waits(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy:
        bridge = make(redis_url=proxy.url, close_timeout_seconds=0.1, max_pending_events=1)
        proxy.is_refusing = True
        await bridge.publish("r", "n", 0)
        waiting = [
            asyncio.ensure_future(bridge.publish("r", "n", 1)),
            asyncio.ensure_future(bridge.flush()),
            asyncio.ensure_future(bridge.publish_end("r")),
        ]
        await asyncio.sleep(0)
        with pytest.raises(StreamUnavailableError, match="1 events"):
            await bridge.close()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StreamUnavailableError)


async def test_close_stores_what_is_pending(make: Make) -> None:
    async with make() as bridge:
        for number in range(500):
            await bridge.publish("r", "n", number)
    async with make() as other:
        await other.publish_end("r")
        assert len(await read(other, "r")) == 256 + 1


async def test_the_encoding_and_timeouts_of_a_borrowed_client_are_its_own(redis_url: str, key_prefix: str) -> None:
    async with (
        Redis.from_url(redis_url, encoding="latin-1", socket_timeout=0.1, health_check_interval=1) as client,
        RedisStreamBridge(client=client, key_prefix=key_prefix, **PATIENT) as bridge,
    ):
        async with reading(bridge, "€", heartbeat_interval=0.4) as next_item:
            for _ in range(3):
                assert await next_item(beats=True) is HEARTBEAT_SENTINEL
            await bridge.publish("€", "€", "€")
            await bridge.publish_end("€", reason="€")
            event = await next_item()
            assert (event.event, event.data) == ("€", "€")
        assert await bridge.end_reason("€") == "€"
        assert bridge.stats().reconnects == 0


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_borrowed_client_is_left_as_it_was(
    redis_url: str, key_prefix: str, decode: bool, protocol: int
) -> None:
    async with Redis.from_url(redis_url, decode_responses=decode, protocol=protocol) as client:
        async with RedisStreamBridge(client=client, key_prefix=key_prefix) as bridge, reading(bridge, "r") as next_item:
            await bridge.publish("r", "n", "ü")
            assert (await next_item()).data == "ü"
            await bridge.publish_end("r")
            assert await next_item() is END_SENTINEL
        assert await client.ping()
        assert await client.get("nothing") is None


async def test_scripts_that_the_server_forgot_are_sent_again(make: Make, redis_url: str) -> None:
    async with make() as bridge:
        await publish_all(bridge, "r", 1)
        with redis.Redis.from_url(redis_url) as client:
            client.script_flush()
        await publish_all(bridge, "r", 1, start=1, end=True)
        assert numbers(await read(bridge, "r")) == [0, 1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"push": "carrier pigeon"}, "push"),
        ({"ack": "none"}, "ack"),
        ({"max_connections": 2}, "max_connections"),
        ({"max_pending_events": 0}, "max_pending_events"),
        ({"max_pending_bytes": 0}, "max_pending_bytes"),
        ({"publish_timeout_seconds": -1}, "publish_timeout_seconds"),
        ({"lease_seconds": -1}, "lease_seconds"),
        ({"redis_url": "http://example"}, "URL"),
    ],
    ids=str,
)
def test_values_that_cannot_be_meant(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        RedisStreamBridge(**options)


async def test_an_unreachable_server_is_named_without_its_password() -> None:
    bridge = RedisStreamBridge(redis_url="redis://me:s3cret@127.0.0.1:1/0", connect_timeout_seconds=2)
    with pytest.raises(StreamUnavailableError, match=r"redis://me:\*\*\*@127\.0\.0\.1:1/0") as caught:
        await bridge.__aenter__()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is not None
    await bridge.close()


async def test_without_an_address_it_is_the_usual_one() -> None:
    bridge = RedisStreamBridge(connect_timeout_seconds=2)

    async def refused() -> None:
        await bridge.__aenter__()
        await bridge.close()
        pytest.skip("there is a server at the usual address, and no error that names it")

    with pytest.raises(StreamUnavailableError, match="redis://localhost:6379/0"):
        await refused()
    await bridge.close()


async def test_a_client_comes_before_a_url(make: Make, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client, make(redis_url="redis://127.0.0.1:1/0", client=client) as bridge:
        await publish_all(bridge, "r", 1, end=True)
        assert numbers(await read(bridge, "r")) == [0]


@pytest.mark.parametrize("version", ["6.2.14", "5.0", "2.8.24"])
async def test_a_server_that_is_too_old_is_refused(make: Make, redis_url: str, version: str) -> None:
    async with cutting_proxy(redis_url) as proxy:
        proxy.answer = _info(version)
        bridge = make(redis_url=proxy.url)
        with pytest.raises(ConfigError, match=rf"{version}; Redis 7.0 or Valkey 7.2"):
            await bridge.__aenter__()
        assert bridge.stats().connections == 0
        await bridge.close()


@pytest.mark.parametrize("version", ["7.0.0", "7.0.15", "7.2.4", "10.1.0", ""])
async def test_a_server_that_is_new_enough_or_tells_nothing_is_taken(make: Make, redis_url: str, version: str) -> None:
    async with cutting_proxy(redis_url) as proxy:
        proxy.answer = _info(version)
        async with make(redis_url=proxy.url) as bridge:
            proxy.answer = b""
            await publish_all(bridge, "r", 1)


def _info(version: str) -> bytes:
    text = f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n"
    return f"${len(text)}\r\n{text}\r\n".encode()


async def test_three_connections_are_enough_and_all_are_closed(make: Make) -> None:
    before = asyncio.all_tasks()
    async with make(max_connections=3) as bridge:
        readers = [asyncio.ensure_future(read(bridge, f"r{number % 7}")) for number in range(50)]
        await until(lambda: bridge.stats().subscribers == 50)
        for number in range(7):
            await publish_all(bridge, f"r{number}", 10, end=True)
        for found in await asyncio.gather(*readers):
            assert numbers(found) == list(range(10))
        assert bridge.stats().connections <= 3
        await until(lambda: bridge.stats().topics == 0, timeout_seconds=2)
        await until(lambda: bridge.stats().connections == 1)
    assert bridge.stats().connections == 0
    assert asyncio.all_tasks() == before


async def test_a_cancelled_question_drops_no_connection(make: Make, redis_url: str) -> None:
    async with make() as bridge:
        with redis.Redis.from_url(redis_url) as client:
            before = client.info("stats")["total_connections_received"]
            for _ in range(20):
                question = asyncio.ensure_future(bridge.stream_exists("r"))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                question.cancel()
                await asyncio.wait([question])
            assert not await bridge.stream_exists("r")
            assert client.info("stats")["total_connections_received"] == before
