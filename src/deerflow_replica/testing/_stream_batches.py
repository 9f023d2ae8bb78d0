"""The same items as by `subscribe`, as many at once as are there."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest

from ..errors import StreamUnavailableError
from ..stream import END_SENTINEL, StreamBridge, StreamGap, StreamItem
from ._stream_common import DEADLINE_SECONDS, Open, StreamFixtures, numbers, publish_all, read, until


async def batches(bridge: StreamBridge, run_id: str, last_event_id: str | None = None) -> list[list[StreamItem]]:
    """What a subscription yields, to its end."""
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        aclosing(bridge.subscribe_batches(run_id, last_event_id=last_event_id)) as feed,
    ):
        return [list(items) async for items in feed]


def _has_delivered(bridge: StreamBridge, count: int) -> bool:
    return bridge.stats().delivered >= count


class BatchesContract(StreamFixtures):
    async def test_batches_are_what_one_by_one_is(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(queue_maxsize=200)
        await publish_all(bridge, run_id, 300, end=True)
        retained = await read(bridge, run_id)
        known = [str(getattr(item, "id", "")) for item in retained[:-1]]
        for cursor in (None, "0-0", known[0], known[100], known[-1], "1-5", "abc"):
            found = await batches(bridge, run_id, cursor)
            assert all(found)
            assert [item for items in found for item in items] == await read(bridge, run_id, cursor)
        assert max(len(items) for items in await batches(bridge, run_id)) > 1

    async def test_large_events_come_in_small_batches(self, bridge: StreamBridge, run_id: str) -> None:
        for _ in range(6):
            await bridge.publish(run_id, "n", "x" * 40_000)
        await bridge.publish_end(run_id)
        assert max(len(items) for items in await batches(bridge, run_id)) < 4

    async def test_batches_go_on_as_events_come(self, bridge: StreamBridge, run_id: str) -> None:
        reading = asyncio.create_task(batches(bridge, run_id))
        for number in range(5):
            await publish_all(bridge, run_id, 1, start=number)
            await until(partial(_has_delivered, bridge, number + 1))
        await bridge.publish_end(run_id)
        found = await reading
        assert numbers([item for items in found for item in items]) == list(range(5))
        assert found[-1][-1] is END_SENTINEL
        assert bridge.stats().subscribers == 0

    async def test_a_stream_that_is_deleted_ends_in_a_gap(self, bridge: StreamBridge, run_id: str) -> None:
        reading = asyncio.create_task(batches(bridge, run_id))
        await publish_all(bridge, run_id, 3)
        await until(partial(_has_delivered, bridge, 3))
        await bridge.cleanup(run_id)
        last = (await reading)[-1][-1]
        assert isinstance(last, StreamGap)
        assert last.earliest_available_event_id is None

    async def test_who_leaves_is_gone_at_once(self, bridge: StreamBridge, run_id: str) -> None:
        await publish_all(bridge, run_id, 3)
        feed = bridge.subscribe_batches(run_id)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert numbers(list(await anext(feed))) == [0, 1, 2]
        assert bridge.stats().subscribers == 1
        await feed.aclose()
        assert bridge.stats().subscribers == 0

    async def test_a_bridge_that_closes_ends_batches_with_an_error(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge()
        reading = asyncio.create_task(batches(bridge, run_id))
        await until(lambda: bridge.stats().subscribers == 1)
        await bridge.close()
        with pytest.raises(StreamUnavailableError):
            await reading

    @pytest.mark.parametrize("wrong", [{"run_id": 5}, {"last_event_id": 5}])
    async def test_batches_of_wrong_types_are_refused_in_the_call(self, bridge: StreamBridge, wrong: Any) -> None:
        with pytest.raises(TypeError):
            bridge.subscribe_batches(**{"run_id": "r", **wrong})
