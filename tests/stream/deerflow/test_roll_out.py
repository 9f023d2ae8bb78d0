"""Gateways with and without the drop-in on one Redis: each reads what the other writes."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import redis.asyncio as redis

from deerflow_replica.errors import StreamEndedError
from deerflow_replica.stream.deerflow import make_stream_bridge
from waiting import eventually

from .test_behaviour import names, read, take

pytestmark = pytest.mark.anyio
TTL_SECONDS = 60


class StockBridge:
    """What DeerFlow's own bridge stores and reads; its ids are the server's."""

    def __init__(self, client: Any, prefix: str, queue_maxsize: int = 256) -> None:
        self._client = client
        self._prefix = prefix
        self._maxlen = queue_maxsize

    def key(self, run_id: str) -> str:
        return f"{self._prefix}:{run_id}"

    async def publish(self, run_id: str, event: str, data: Any) -> str:
        return await self._append(run_id, {"kind": "event", "event": event, "data": json.dumps(data)}, self._maxlen)

    async def publish_end(self, run_id: str) -> str:
        return await self._append(run_id, {"kind": "end"}, self._maxlen + 1)

    async def read(self, run_id: str, after: str = "0-0") -> list[tuple[str, str, Any]]:
        """Id, event and data of what it would deliver after an id; at last the end, or nothing if there is none."""
        found: list[tuple[str, str, Any]] = []
        while reply := await self._client.xread({self.key(run_id): after}, count=2):
            for after, fields in reply[0][1]:
                if fields.get("kind") == "end":
                    return [*found, (after, "__end__", None)]
                found.append((after, fields["event"], json.loads(fields["data"])))
        return found

    async def cleanup(self, run_id: str) -> None:
        await self._client.delete(self.key(run_id))

    async def _append(self, run_id: str, fields: dict[str, str], maxlen: int) -> str:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.xadd(self.key(run_id), fields, maxlen=maxlen, approximate=False)
            pipe.expire(self.key(run_id), TTL_SECONDS)
            added, _ = await pipe.execute()
        return str(added)


@pytest.fixture
async def stock(redis_url: str, key_prefix: str) -> AsyncIterator[StockBridge]:
    async with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield StockBridge(client, key_prefix, queue_maxsize=4)


@pytest.fixture(params=["pubsub", "xread"])
async def ours(request: pytest.FixtureRequest, redis_url: str, key_prefix: str, deerflow: Any) -> AsyncIterator[Any]:
    async with drop_in(redis_url, key_prefix, push=request.param) as bridge:
        yield bridge


@asynccontextmanager
async def drop_in(redis_url: str, key_prefix: str, **options: Any) -> AsyncIterator[Any]:
    section = {"redis_url": redis_url, "key_prefix": key_prefix, "queue_maxsize": 4, "check_interval_seconds": 0.3}
    config = SimpleNamespace(stream_bridge=SimpleNamespace(type="redis", **section, **options))
    async with make_stream_bridge(config) as bridge:
        yield bridge


async def test_a_stock_gateway_reads_ours(ours: Any, stock: StockBridge) -> None:
    for number in range(3):
        await ours.publish("r", f"e{number}", {"n": number, "text": "žluť\n"})
    await ours.publish_end("r")
    there = await stock.read("r")
    mine = await read(ours, "r")
    assert [item[1:] for item in there[:3]] == [(f"e{n}", {"n": n, "text": "žluť\n"}) for n in range(3)]
    assert [item[0] for item in there[:3]] == [item.id for item in mine[:3]]
    assert there[3][1] == "__end__"
    assert [item[1] for item in await stock.read("r", mine[0].id)] == ["e1", "e2", "__end__"]


async def test_ours_reads_a_stock_gateway(ours: Any, stock: StockBridge, deerflow: Any) -> None:
    known = [await stock.publish("r", f"e{number}", {"n": number}) for number in range(3)]
    assert await ours.stream_exists("r")
    end = await stock.publish_end("r")
    items = await read(ours, "r")
    assert items[:3] == [deerflow.StreamEvent(known[n], f"e{n}", {"n": n}) for n in range(3)]
    assert items[3] is deerflow.END_SENTINEL
    assert names(await read(ours, "r", known[1])) == ["e2", "__end__"]
    assert await read(ours, "r", end) == [deerflow.END_SENTINEL]
    assert names(await read(ours, "r", "-1")) == ["e0", "e1", "e2", "__end__"]


async def test_ours_follows_a_stock_gateway(ours: Any, stock: StockBridge, deerflow: Any) -> None:
    subscription = ours.subscribe("r", heartbeat_interval=0.05)
    assert await take(subscription) is deerflow.HEARTBEAT_SENTINEL
    seen = []
    for number in range(3):
        await stock.publish("r", f"e{number}", None)
        seen.append(await beyond_heartbeats(subscription, deerflow))
    await stock.publish_end("r")
    seen.append(await beyond_heartbeats(subscription, deerflow))
    assert names(seen) == ["e0", "e1", "e2", "__end__"]
    assert seen[3] is deerflow.END_SENTINEL


async def test_an_evicted_cursor_of_a_stock_stream_is_a_gap(ours: Any, stock: StockBridge, deerflow: Any) -> None:
    known = [await stock.publish("r", f"e{number}", None) for number in range(6)]
    assert await read(ours, "r", known[1]) == [deerflow.StreamGap(known[1], known[2], known[5])]
    subscription = ours.subscribe("r", last_event_id=known[2], heartbeat_interval=math.inf)
    assert (await take(subscription)).event == "e3"
    await subscription.aclose()


async def test_a_run_that_a_stock_gateway_recovered_ends_here_too(ours: Any, stock: StockBridge, deerflow: Any) -> None:
    for number in range(2):
        await ours.publish("r", f"e{number}", None)
    await ours.bridge.flush("r")
    subscription = ours.subscribe("r", heartbeat_interval=0.05)
    assert names([await beyond_heartbeats(subscription, deerflow) for _ in range(2)]) == ["e0", "e1"]
    await stock.publish_end("r")
    assert await beyond_heartbeats(subscription, deerflow) is deerflow.END_SENTINEL
    assert names(await read(ours, "r")) == ["e0", "e1", "__end__"]
    assert [item[1] for item in await stock.read("r")] == ["e0", "e1", "__end__"]
    await ours.publish("r", "late", None)
    await ours.publish_end("r")
    assert names(await read(ours, "r")) == ["e0", "e1", "__end__"]
    assert await ours.bridge.end_reason("r") == "done"
    with pytest.raises(StreamEndedError):
        await ours.publish("r", "later", None)


async def test_a_run_that_ours_recovered_ends_there_too(ours: Any, stock: StockBridge, deerflow: Any) -> None:
    """Recovery publishes the end of runs whose worker is gone, whoever began their streams."""
    subscription = ours.subscribe("r", heartbeat_interval=0.05)
    for number in range(2):
        await stock.publish("r", f"e{number}", None)
    await ours.publish_end("r")
    assert [item[1] for item in await stock.read("r")] == ["e0", "e1", "__end__"]
    assert names(await read(ours, "r")) == ["e0", "e1", "__end__"]
    followed = [await beyond_heartbeats(subscription, deerflow) for _ in range(3)]
    assert names(followed) == ["e0", "e1", "__end__"]


@pytest.mark.parametrize("max_stream_bytes", [64 * 2**20, 100])
async def test_both_write_to_one_run(
    redis_url: str, key_prefix: str, stock: StockBridge, deerflow: Any, max_stream_bytes: int
) -> None:
    """No deployment does; nothing is lost all the same, and ids stay contiguous."""
    async with drop_in(redis_url, key_prefix, max_stream_bytes=max_stream_bytes) as ours:
        subscription = ours.subscribe("r", heartbeat_interval=0.05)
        for number in range(0, 6, 2):
            await ours.publish("r", f"e{number}", "x" * 28)
            await ours.bridge.flush("r")
            await stock.publish("r", f"e{number + 1}", "x" * 28)
            seen = [await beyond_heartbeats(subscription, deerflow) for _ in range(2)]
            assert names(seen) == [f"e{number}", f"e{number + 1}"]
            assert [item.id.partition("-")[2] for item in seen] == [str(number), str(number + 1)]
        await ours.publish_end("r")
        assert (await beyond_heartbeats(subscription, deerflow)) is deerflow.END_SENTINEL
        assert names(await read(ours, "r"))[-2:] == ["e5", "__end__"]


async def test_a_clean_up_by_either_is_one_for_both(ours: Any, stock: StockBridge) -> None:
    await ours.publish("r", "mine", None)
    await ours.publish_end("r")
    await stock.cleanup("r")
    assert not await ours.stream_exists("r")
    await stock.publish("s", "theirs", None)
    await ours.cleanup("s")
    await eventually(lambda: is_empty(stock, "s"))


async def is_empty(stock: StockBridge, run_id: str) -> bool:
    return not await stock.read(run_id)


async def beyond_heartbeats(subscription: AsyncIterator[Any], deerflow: Any) -> Any:
    while (item := await take(subscription)) is deerflow.HEARTBEAT_SENTINEL:
        pass
    return item
