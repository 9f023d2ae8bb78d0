"""What waits for room in front of the server, and how those are told whose events were refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from deerflow_replica.errors import StreamEndedError, StreamUnavailableError
from deerflow_replica.stream import RedisStreamBridge
from deerflow_replica.testing._stream_common import numbers, publish_all, read, until
from proxy import cutting_proxy

pytestmark = pytest.mark.anyio
Make = Callable[..., RedisStreamBridge]


@pytest.fixture
def make(redis_url: str, key_prefix: str) -> Make:
    return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.3)


async def test_the_buffer_is_bounded_in_bytes(make: Make, redis_url: str) -> None:
    async with (
        cutting_proxy(redis_url) as proxy,
        make(redis_url=proxy.url, max_pending_bytes=100, publish_timeout_seconds=0.3) as bridge,
    ):
        proxy.is_refusing = True
        proxy.cut()
        await bridge.publish("r", "name", "x" * 500)  # one always has room
        assert (bridge.stats().pending_events, bridge.stats().pending_bytes) == (1, 506)
        with pytest.raises(StreamUnavailableError, match="room"):
            await bridge.publish("r", "name", 1)
        assert bridge.stats().published == 1
        proxy.is_refusing = False
        await until(lambda: not bridge.stats().pending_events)


async def test_what_waits_for_room_is_not_overtaken(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy, make(redis_url=proxy.url, max_pending_bytes=100) as bridge:
        proxy.is_refusing = True
        proxy.cut()
        for _ in range(4):
            await bridge.publish("r", "name", "x" * 18)
        assert bridge.stats().pending_bytes == 96
        late = [asyncio.ensure_future(bridge.publish("r", "n", value)) for value in ("x" * 20, 1, 2)]
        await asyncio.sleep(0)
        assert bridge.stats().pending_events == 4  # for a small one there would be room
        proxy.is_refusing = False
        await asyncio.gather(*late)
        await bridge.publish_end("r")
        assert bridge.stats().pending_bytes == 0
        assert [len(str(value)) for value in numbers(await read(bridge, "r"))] == [18, 18, 18, 18, 20, 1, 1]
        assert bridge.stats().published == 7


async def test_who_gives_up_lets_those_behind_in(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy, make(redis_url=proxy.url, max_pending_bytes=100) as bridge:
        proxy.is_refusing = True
        proxy.cut()
        await bridge.publish("r", "name", "x" * 90)
        values = ("large" * 20, 0, 1, 2)
        waiting = [asyncio.ensure_future(bridge.publish("r", "n", value)) for value in values]
        await asyncio.sleep(0)
        assert bridge.stats().pending_events == 1
        for given_up in waiting[:2]:
            given_up.cancel()
        await asyncio.gather(*waiting[2:])  # with the server still away
        proxy.is_refusing = False
        await bridge.publish_end("r")
        assert numbers(await read(bridge, "r"))[1:] == [1, 2]
        assert all(given_up.cancelled() for given_up in waiting[:2])


async def test_what_waits_behind_end_is_told(make: Make, redis_url: str) -> None:
    async with cutting_proxy(redis_url) as proxy, make(redis_url=proxy.url, max_pending_events=1) as bridge:
        proxy.is_refusing = True
        proxy.cut()
        await bridge.publish("r", "n", 0)
        calls = (bridge.publish_end("r", reason="first"), bridge.publish("r", "n", 1), bridge.publish_end("r"))
        waiting = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        proxy.is_refusing = False
        end, late, second_end = await asyncio.gather(*waiting, return_exceptions=True)
        assert (end, second_end) == (None, None)
        assert isinstance(late, StreamEndedError)
        await bridge.flush()
        assert numbers(await read(bridge, "r")) == [0]
        assert await bridge.end_reason("r") == "first"


@pytest.mark.parametrize("by", ["publish", "publish_end", "flush"])
async def test_a_refusal_is_told_once(make: Make, by: str) -> None:
    async with make() as ours, make() as other:
        await publish_all(ours, "r", 1)
        await other.publish_end("r")
        await ours.publish("r", "n", 1)
        await until(lambda: not ours.stats().pending_events)
        call = {"publish": ours.publish("r", "n", 2), "publish_end": ours.publish_end("r"), "flush": ours.flush()}
        for name, refused in call.items():
            if name == by:
                with pytest.raises(StreamEndedError):
                    await refused
            else:
                refused.close()
        await ours.flush()


async def test_what_end_told_is_not_told_again(make: Make) -> None:
    async with make() as ours, make() as other:
        await publish_all(ours, "r", 1)
        await other.publish_end("r")
        await ours.publish("r", "n", 1)
        with pytest.raises(StreamEndedError):
            await ours.publish_end("r")
        await ours.flush()
