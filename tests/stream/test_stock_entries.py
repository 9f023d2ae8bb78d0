"""Streams that a stock DeerFlow bridge writes: `XADD key *` with three fields, so ids jump."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import pytest
import redis

from deerflow_replica.errors import StreamEndedError
from deerflow_replica.stream import END_SENTINEL, RedisStreamBridge, StreamEvent, StreamGap
from deerflow_replica.testing._stream_common import numbers, placed, publish_all, read, reading, until

pytestmark = pytest.mark.anyio
Make = Callable[..., RedisStreamBridge]


class StockBridge:
    """Writes as the stock one does."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def publish(self, run: str, data: Any, *, maxlen: int | None = None, entry_id: str = "*") -> str:
        fields: Any = {"kind": "event", "event": "n", "data": json.dumps(data)}
        return self._add(run, fields, maxlen, entry_id)

    def publish_end(self, run: str) -> str:
        return self._add(run, {"kind": "end", "event": "", "data": "null"}, None, "*")

    def delete(self, run: str) -> None:
        self._client.delete(f"{self._prefix}:{run}")

    def _add(self, run: str, fields: Any, maxlen: int | None, entry_id: str) -> str:
        found: Any = self._client.xadd(f"{self._prefix}:{run}", fields, id=entry_id, maxlen=maxlen, approximate=False)
        return bytes(found).decode()


@pytest.fixture
def stock(redis_url: str, key_prefix: str) -> Iterator[StockBridge]:
    with redis.Redis.from_url(redis_url) as client:
        yield StockBridge(client, key_prefix)


@pytest.fixture
def make(redis_url: str, key_prefix: str, push: Literal["pubsub", "xread"]) -> Make:
    return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, push=push, check_interval_seconds=0.2)


async def test_what_is_there_and_what_comes_with_the_ids_it_has(make: Make, stock: StockBridge) -> None:
    wanted = [stock.publish("r", number) for number in range(3)]
    async with make() as bridge, reading(bridge, "r") as next_item:
        found = [await next_item() for _ in range(3)]
        wanted += [stock.publish("r", number) for number in range(3, 6)]
        found += [await next_item() for _ in range(3)]
        assert [item.id for item in found] == wanted
        assert [item.data for item in found] == list(range(6))
        stock.publish_end("r")
        assert await next_item() is END_SENTINEL


async def test_blocking_reads_bring_them_at_once(make: Make, stock: StockBridge) -> None:
    async with make(push="xread", check_interval_seconds=600) as bridge, reading(bridge, "r") as next_item:
        for number in range(5):
            stock.publish("r", number)
            assert (await next_item()).data == number


async def test_a_reader_resumes_after_any_id(make: Make, stock: StockBridge) -> None:
    ids = [stock.publish("r", number) for number in range(5)]
    end = stock.publish_end("r")
    async with make() as bridge:
        for at, entry_id in enumerate(ids):
            assert numbers(await read(bridge, "r", entry_id)) == list(range(at + 1, 5))
        assert await read(bridge, "r", end) == [END_SENTINEL]
        assert numbers(await read(bridge, "r", "0")) == list(range(5))
        assert numbers(await read(bridge, "r", "nonsense")) == list(range(5))
        later = f"{int(end.partition('-')[0]) + 1}-0"
        assert await read(bridge, "r", later) == [StreamGap(later, ids[0], ids[-1])]


async def test_a_cursor_before_the_first_entry_is_a_gap(make: Make, stock: StockBridge) -> None:
    ids = [stock.publish("r", number, maxlen=3) for number in range(6)]
    stock.publish_end("r")
    async with make() as bridge:
        assert await read(bridge, "r", ids[2]) == [StreamGap(ids[2], ids[3], ids[5])]
        assert await read(bridge, "r", "0-0") == [StreamGap("0-0", ids[3], ids[5])]
        assert numbers(await read(bridge, "r", ids[3])) == [4, 5]
        assert numbers(await read(bridge, "r")) == [3, 4, 5]


async def test_tail_gives_only_what_comes(make: Make, stock: StockBridge) -> None:
    stock.publish("r", 0)
    async with make(invalid_cursor="tail") as bridge, reading(bridge, "r", "-1") as next_item:
        beat = await next_item(beats=True)
        assert beat.data is None
        await placed(bridge, "r")
        stock.publish("r", 1)
        assert (await next_item()).data == 1
        stock.publish_end("r")
        assert await next_item() is END_SENTINEL
        assert numbers(await read(bridge, "r", "-1")) == [0, 1]


async def test_a_reader_that_waited_gets_everything_or_a_gap(make: Make, stock: StockBridge) -> None:
    async with make() as bridge, reading(bridge, "whole") as whole, reading(bridge, "trimmed") as trimmed:
        waiting = [asyncio.ensure_future(whole()), asyncio.ensure_future(trimmed())]
        topics = bridge._feed.hub.topics
        await until(lambda: len(topics) == 2 and all(r.awaits_stream for t in topics.values() for r in t.subscribers))
        with redis.Redis(connection_pool=stock._client.connection_pool).pipeline() as pipe:
            for number in range(4):
                for run, maxlen in (("whole", None), ("trimmed", 2)):
                    fields: Any = {"kind": "event", "event": "n", "data": str(number)}
                    pipe.xadd(f"{stock._prefix}:{run}", fields, maxlen=maxlen, approximate=False)
            added = pipe.execute()
        first, gap = await asyncio.gather(*waiting)
        assert (first.id, first.data) == (added[0].decode(), 0)
        assert gap == StreamGap(None, added[5].decode(), added[7].decode())


async def test_a_slow_reader_gets_a_gap_when_what_it_needs_is_trimmed(make: Make, stock: StockBridge) -> None:
    first = stock.publish("r", 0)
    async with make() as bridge, reading(bridge, "r") as next_item:
        assert (await next_item()).data == 0
        ids = [stock.publish("r", number, maxlen=2) for number in range(1, 9)]
        items = [await next_item()]
        while isinstance(items[-1], StreamEvent) and items[-1].data < 8:
            items.append(await next_item())
        if isinstance(items[-1], StreamGap):
            assert items[-1].requested_event_id == ([first, *ids][len(items) - 1])
        else:
            assert [item.data for item in items] == list(range(1, 9))


async def test_more_entries_than_a_page_arrive_once_in_order(make: Make, stock: StockBridge) -> None:
    count = 1300
    with stock._client.pipeline() as pipe:
        for number in range(count):
            fields: Any = {"kind": "event", "event": "n", "data": str(number)}
            pipe.xadd(f"{stock._prefix}:r", fields)
        pipe.execute()
    async with make() as bridge:
        found = [asyncio.ensure_future(read(bridge, "r")) for _ in range(5)]
        await until(lambda: bridge.stats().delivered >= 1000)
        for number in range(count, count + 20):
            stock.publish("r", number)
        stock.publish_end("r")
        for items in await asyncio.gather(*found):
            assert numbers(items) == list(range(count + 20))
            assert items[-1] is END_SENTINEL


async def test_deleted_and_made_anew_are_gaps(make: Make, stock: StockBridge) -> None:
    ids = {run: stock.publish(run, 0) for run in ("gone", "anew")}
    async with make() as bridge, reading(bridge, "gone") as gone, reading(bridge, "anew") as anew:
        assert (await gone()).data == (await anew()).data == 0
        stock.delete("gone")
        stock.delete("anew")
        fresh = stock.publish("anew", 1)
        assert await gone() == StreamGap(ids["gone"], None, None)
        gap = await anew()
        assert gap in (StreamGap(ids["anew"], fresh, fresh), StreamGap(ids["anew"], None, None))


async def test_exists_and_how_it_ended(make: Make, stock: StockBridge) -> None:
    async with make() as bridge:
        assert not await bridge.stream_exists("r")
        stock.publish("r", 0)
        assert await bridge.stream_exists("r")
        assert await bridge.end_reason("r") is None
        stock.publish_end("r")
        assert await bridge.end_reason("r") == "done"
        await bridge.cleanup("r")
        assert not await bridge.stream_exists("r")


@pytest.mark.parametrize("ack", ["pipelined", "server"])
async def test_ours_after_stock_ones(make: Make, stock: StockBridge, ack: str) -> None:
    stock_ids = [stock.publish("r", number) for number in range(3)]
    async with make(ack=ack) as bridge, make() as other, reading(other, "r") as next_item:
        assert [(await next_item()).data for _ in range(3)] == [0, 1, 2]
        await publish_all(bridge, "r", 3, start=3)
        ours = [await next_item() for _ in range(3)]
        assert [item.data for item in ours] == [3, 4, 5]
        assert [item.id.partition("-")[2] for item in ours] == ["0", "1", "2"]
        ids = [*stock_ids, *(item.id for item in ours)]
        for at, entry_id in enumerate(ids):
            items = await read(bridge, "r", entry_id, items=5 - at) if at < 5 else []
            assert numbers(items) == list(range(at + 1, 6))
        await bridge.publish_end("r", reason="why")
        assert await next_item() is END_SENTINEL
        assert await other.end_reason("r") == "why"
        assert numbers(await read(other, "r")) == list(range(6))
        assert numbers(await read(other, "r", stock_ids[1])) == [2, 3, 4, 5]


async def test_stock_ones_after_ours_are_contiguous(make: Make, stock: StockBridge) -> None:
    async with make() as bridge, make() as other, reading(other, "r") as next_item:
        await publish_all(bridge, "r", 2)
        first = await next_item()
        assert (await next_item()).data == 1
        epoch = first.id.partition("-")[0]
        assert stock.publish("r", 2) == f"{epoch}-2"
        assert (await next_item()).data == 2
        stock.publish("r", 3)
        assert (await next_item()).data == 3
        await publish_all(bridge, "r", 2, start=4)
        assert [(await next_item()).id for _ in range(2)] == [f"{epoch}-4", f"{epoch}-5"]
        stock.publish_end("r")
        assert await next_item() is END_SENTINEL
        assert numbers(await read(bridge, "r", first.id)) == [1, 2, 3, 4, 5]
        assert await bridge.end_reason("r") == "done"


async def test_nothing_of_ours_follows_a_stock_end(make: Make, stock: StockBridge) -> None:
    stock.publish("r", 0)
    stock.publish_end("r")
    async with make(ack="server") as bridge:
        with pytest.raises(StreamEndedError):
            await bridge.publish("r", "n", 1)
        assert numbers(await read(bridge, "r")) == [0]


async def test_nothing_of_ours_follows_a_stock_end_of_our_stream(make: Make, stock: StockBridge) -> None:
    async with make(ack="server") as bridge:
        await bridge.publish("r", "n", 0)
        stock.publish_end("r")
        with pytest.raises(StreamEndedError):
            await bridge.publish("r", "n", 1)
        assert stock._client.xlen(f"{stock._prefix}:r") == 2
        assert await bridge.end_reason("r") == "done"


async def test_a_stream_trimmed_to_ours_goes_on(make: Make, stock: StockBridge) -> None:
    stock.publish("r", -1)
    async with make(queue_maxsize=4, live_window=4) as bridge, reading(bridge, "r") as next_item:
        assert (await next_item()).data == -1
        for number in range(20):
            await publish_all(bridge, "r", 1, start=number)
            assert (await next_item()).data == number
        await bridge.publish_end("r")
        assert await next_item() is END_SENTINEL
        async with make() as newcomer:
            assert numbers(await read(newcomer, "r")) == [16, 17, 18, 19]


async def test_python_json_that_is_none(make: Make, stock: StockBridge) -> None:
    stock.publish("r", {"a": math.nan, "b": "\ud800", "c": 1})
    stock.publish_end("r")
    async with make() as bridge:
        event, _ = await read(bridge, "r")
        assert isinstance(event, StreamEvent)
        assert event.data == {"a": None, "b": "\ufffd", "c": 1}
