"""What DeerFlow expects of a bridge, of both of ours behind the drop-in."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from waiting import eventually

if TYPE_CHECKING:
    from deerflow_replica.stream.deerflow import DeerFlowStreamBridge

    from .conftest import Make

pytestmark = pytest.mark.anyio
SECONDS = 60.0


async def take(items: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(SECONDS):
        return await anext(items)


async def read(bridge: DeerFlowStreamBridge, run_id: str, last_event_id: str | None = None) -> list[Any]:
    """Everything to the end."""
    async with asyncio.timeout(SECONDS):
        subscription = bridge.subscribe(run_id, last_event_id=last_event_id, heartbeat_interval=math.inf)
        return [item async for item in subscription]


async def publish(bridge: DeerFlowStreamBridge, run_id: str, *numbers: int, end: bool = False) -> list[str]:
    """Events called by their number in the run; the ids of its first ten entries, whether they are there or not."""
    for number in numbers:
        await bridge.publish(run_id, f"e{number}", {"n": number})
    if end:
        await bridge.publish_end(run_id)
    await bridge.bridge.flush()
    subscription = bridge.subscribe(run_id)
    epoch = (await take(subscription)).id.partition("-")[0]
    await subscription.aclose()
    return [f"{epoch}-{seq}" for seq in range(10)]


async def placed(bridge: DeerFlowStreamBridge, run_id: str) -> None:
    """Return when who subscribed before has its place, which no heartbeat tells: a foreign id is answered in turn."""
    assert len(await read(bridge, run_id, "1-0")) == 1


def names(items: list[Any]) -> list[str]:
    return [item.event for item in items]


async def test_events_come_in_order_then_the_end(make: Make, deerflow: Any) -> None:
    bridge = await make()
    await bridge.publish("r", "metadata", {"run_id": "r"})
    await bridge.publish("r", "values", {"messages": []})
    await bridge.publish_end("r")
    first, second, end = await read(bridge, "r")
    assert (first, second) == (
        deerflow.StreamEvent(first.id, "metadata", {"run_id": "r"}),
        deerflow.StreamEvent(second.id, "values", {"messages": []}),
    )
    assert end is deerflow.END_SENTINEL
    assert re.fullmatch(r"\d+-\d+", first.id, re.ASCII)


async def test_runs_do_not_mix(make: Make) -> None:
    bridge = await make()
    await publish(bridge, "a", 0, end=True)
    await publish(bridge, "b", 0, 1, end=True)
    assert names(await read(bridge, "a")) == ["e0", "__end__"]
    assert names(await read(bridge, "b")) == ["e0", "e1", "__end__"]


async def test_silence_gives_a_heartbeat_of_deerflows(make: Make, deerflow: Any) -> None:
    bridge = await make()
    await publish(bridge, "r", 0)
    subscription = bridge.subscribe("r", heartbeat_interval=0.05)
    assert (await take(subscription)).event == "e0"
    assert await take(subscription) is deerflow.HEARTBEAT_SENTINEL
    await subscription.aclose()


async def test_the_sections_heartbeat_holds_where_a_subscriber_gives_none(make: Make, deerflow: Any) -> None:
    bridge = await make(heartbeat_interval_seconds=0.05)
    assert bridge.heartbeat_interval == 0.05
    subscription = bridge.subscribe("r")
    assert await take(subscription) is deerflow.HEARTBEAT_SENTINEL
    await subscription.aclose()


@pytest.mark.parametrize("seconds", [0, -1, math.nan, True])
async def test_a_heartbeat_that_cannot_be_is_refused(make: Make, seconds: float) -> None:
    bridge = await make()
    with pytest.raises((ValueError, TypeError), match="heartbeat_interval"):
        bridge.subscribe("r", heartbeat_interval=seconds)


async def test_a_reconnect_goes_on_after_its_last_id(make: Make, deerflow: Any) -> None:
    bridge = await make()
    known = await publish(bridge, "r", 0, 1, 2, end=True)
    assert names(await read(bridge, "r", known[0])) == ["e1", "e2", "__end__"]
    assert await read(bridge, "r", known[3]) == [deerflow.END_SENTINEL]


async def test_who_comes_first_waits_for_the_first_event(make: Make) -> None:
    bridge = await make()
    reading = asyncio.create_task(read(bridge, "r"))
    await eventually(lambda: bridge.bridge.stats().subscribers == 1)
    await publish(bridge, "r", 0, end=True)
    assert names(await reading) == ["e0", "__end__"]


async def test_only_the_newest_are_retained_and_the_end_displaces_none(make: Make) -> None:
    bridge = await make(queue_maxsize=2)
    await publish(bridge, "r", 0, 1, 2)
    await publish(bridge, "r", 3, end=True)
    assert names(await read(bridge, "r")) == ["e2", "e3", "__end__"]


@pytest.mark.parametrize("useless", [0, -5])
async def test_a_bound_below_one_counts_as_one(make: Make, useless: int) -> None:
    bridge = await make(queue_maxsize=useless)
    await publish(bridge, "r", 0, 1, end=True)
    assert names(await read(bridge, "r")) == ["e1", "__end__"]


async def test_a_run_without_events_ends(make: Make, deerflow: Any) -> None:
    bridge = await make()
    await bridge.publish_end("r")
    assert await read(bridge, "r") == [deerflow.END_SENTINEL]


async def test_an_evicted_cursor_is_a_gap_even_if_nothing_after_it_is_lost(make: Make, deerflow: Any) -> None:
    bridge = await make(queue_maxsize=2)
    known = await publish(bridge, "r", 0, 1, 2)
    assert await read(bridge, "r", known[0]) == [deerflow.StreamGap(known[0], known[1], known[2])]
    await bridge.publish_end("r")
    assert await read(bridge, "r", known[0]) == [deerflow.StreamGap(known[0], known[1], known[2])]


async def test_a_cursor_of_another_stream_is_a_gap(make: Make, deerflow: Any) -> None:
    bridge = await make(queue_maxsize=2)
    known = await publish(bridge, "r", 0, 1, 2)
    foreign = f"{int(known[0].partition('-')[0]) + 1}-0"
    assert await read(bridge, "r", foreign) == [deerflow.StreamGap(foreign, known[1], known[2])]


async def test_a_reader_that_fell_behind_gets_a_gap_and_nothing_more(make: Make, deerflow: Any) -> None:
    bridge = await make(queue_maxsize=2)
    known = await publish(bridge, "r", 0)
    subscription = bridge.subscribe("r", heartbeat_interval=math.inf)
    assert (await take(subscription)).event == "e0"
    await publish(bridge, "r", 1, 2, 3)
    assert await take(subscription) == deerflow.StreamGap(known[0], known[2], known[3])
    with pytest.raises(StopAsyncIteration):
        await take(subscription)


async def test_a_reader_that_waited_and_missed_the_beginning_gets_a_gap(make: Make, deerflow: Any) -> None:
    bridge = await make(queue_maxsize=2)
    subscription = bridge.subscribe("r", heartbeat_interval=0.05)
    assert await take(subscription) is deerflow.HEARTBEAT_SENTINEL
    await placed(bridge, "r")
    known = await publish(bridge, "r", 0, 1, 2, 3)
    gap = await take(subscription)
    while gap is deerflow.HEARTBEAT_SENTINEL:
        gap = await take(subscription)
    assert gap == deerflow.StreamGap(None, known[2], known[3])


@pytest.mark.parametrize("malformed", ["-1", "not-a-real-id", "1718000000000-x"])
async def test_a_malformed_cursor_gets_what_comes_next(make: Make, deerflow: Any, malformed: str) -> None:
    bridge = await make()
    await publish(bridge, "r", 0)
    subscription = bridge.subscribe("r", last_event_id=malformed, heartbeat_interval=0.05)
    assert await take(subscription) is deerflow.HEARTBEAT_SENTINEL
    await placed(bridge, "r")
    await bridge.publish("r", "e1", None)
    await bridge.publish_end("r")
    items = [item async for item in subscription if item is not deerflow.HEARTBEAT_SENTINEL]
    assert names(items) == ["e1", "__end__"]


async def test_a_malformed_cursor_waits_for_the_first_event(make: Make) -> None:
    bridge = await make()
    reading = asyncio.create_task(read(bridge, "r", "-1"))
    await eventually(lambda: bridge.bridge.stats().subscribers == 1)
    await publish(bridge, "r", 0, end=True)
    assert names(await reading) == ["e0", "__end__"]


async def test_a_malformed_cursor_on_a_run_that_ended_gets_what_is_retained(make: Make) -> None:
    bridge = await make()
    await publish(bridge, "r", 0, 1, end=True)
    assert names(await read(bridge, "r", "-1")) == ["e0", "e1", "__end__"]


async def test_a_deleted_stream_is_not_there(make: Make) -> None:
    bridge = await make()
    await publish(bridge, "r", 0, end=True)
    assert await bridge.stream_exists("r")
    await bridge.cleanup("r")
    assert not await bridge.stream_exists("r")


async def test_a_delayed_clean_up_holds_nobody_up(make: Make) -> None:
    """DeerFlow's worker leaves it to a task of its own; ours is done before, and the stream goes all the same."""
    bridge = await make()
    await publish(bridge, "r", 0, end=True)
    await asyncio.create_task(bridge.cleanup("r", delay=60))
    assert await bridge.stream_exists("r")
    await bridge.cleanup("r", delay=0.05)
    await eventually(lambda: gone(bridge, "r"))


async def gone(bridge: DeerFlowStreamBridge, run_id: str) -> bool:
    return not await bridge.stream_exists(run_id)


async def test_a_second_end_and_what_a_worker_says_after_it(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The end of a run that was recovered elsewhere comes twice; its worker learns of it by its next event."""
    here, there = await make(), await make()
    if not here.supports_cross_process:
        there = here
    await publish(here, "r", 0)
    await there.publish_end("r")
    if here is not there:
        await here.publish("r", "late", None)
    await here.publish_end("r")
    assert names(await read(here, "r")) == ["e0", "__end__"]
    assert ("ended by somebody else" in caplog.text) == (here is not there)


async def test_an_abandoned_subscription_leaves_nobody_behind(make: Make) -> None:
    bridge = await make()
    await publish(bridge, "r", 0)
    async for _ in bridge.subscribe("r"):
        break
    await eventually(lambda: bridge.bridge.stats().subscribers == 0)


async def test_a_closed_subscription_is_gone_at_once(make: Make) -> None:
    bridge = await make()
    await publish(bridge, "r", 0)
    subscription = bridge.subscribe("r")
    await take(subscription)
    assert bridge.bridge.stats().subscribers == 1
    await subscription.aclose()
    assert bridge.bridge.stats().subscribers == 0
