"""Random reconnects, from any place, over connections that are cut: the same as one unbroken read in process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Literal, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from deerflow_replica.stream import END_SENTINEL, InMemoryStreamBridge, RedisStreamBridge, StreamBridge, StreamEvent
from deerflow_replica.testing._stream_common import DEADLINE_SECONDS, read
from proxy import CuttingProxy, cutting_proxy

EVENTS = 60
_EXAMPLES = count()


Fault = Literal["none", "cut", "swallow", "delay", "half"]
FAULTS: st.SearchStrategy[Fault] = st.sampled_from(["none", "cut", "swallow", "delay", "half"])


class Visit(NamedTuple):
    """One connection of the client: at which replica, after how many events it leaves, and what breaks meanwhile.

    `back`: it forgets so many of the last events it saw; None: it begins anew without a cursor.
    """

    replica: int
    items: int
    back: int | None
    fault: Fault


VISITS = st.lists(
    st.builds(
        Visit,
        replica=st.integers(0, 1),
        items=st.integers(1, 25),
        back=st.sampled_from([0, 0, 0, 1, 5, 100, None]),
        fault=FAULTS,
    ),
    max_size=8,
)


def test_any_reconnects_give_every_event_once(redis_url: str, key_prefix: str, push: Any) -> None:
    @settings(max_examples=25)
    @given(
        visits=VISITS,
        ack=st.sampled_from(["pipelined", "server"]),
        faults=st.dictionaries(st.integers(1, EVENTS - 1), FAULTS),
    )
    def any_reconnects(visits: list[Visit], ack: Any, faults: dict[int, Fault]) -> None:
        prefix = f"{key_prefix}:{next(_EXAMPLES)}"
        options = {"redis_url": redis_url, "key_prefix": prefix, "push": push, "ack": ack}
        asyncio.run(asyncio.wait_for(_compared(options, visits, faults), 3 * DEADLINE_SECONDS))

    any_reconnects()


async def _compared(options: dict[str, Any], visits: Sequence[Visit], faults: Mapping[int, Fault]) -> None:
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(cutting_proxy(options["redis_url"])) for _ in range(3)]
        *replicas, writer = [await stack.enter_async_context(_bridge(options, proxy)) for proxy in proxies]
        expected = await stack.enter_async_context(InMemoryStreamBridge())
        await _publish(expected, None, {})
        publishing = asyncio.ensure_future(_publish(writer, proxies[-1], faults))
        seen = await _client(replicas, proxies, visits)
        await publishing
        assert seen == _plain(await read(expected, "r"))
        assert _plain(await read(writer, "r", "0")) == seen


def _bridge(options: dict[str, Any], proxy: CuttingProxy) -> RedisStreamBridge:
    changed: dict[str, Any] = {**options, "redis_url": proxy.url}
    return RedisStreamBridge(**changed)


async def _publish(bridge: StreamBridge, proxy: CuttingProxy | None, faults: Mapping[int, Fault]) -> None:
    for number in range(EVENTS):
        await bridge.publish("r", "n", {"number": number})
        if number in faults and proxy is not None:
            _break(proxy, faults[number])
        if number % 7 == 0:
            await bridge.flush()
    await bridge.publish_end("r")


async def _client(
    replicas: Sequence[StreamBridge], proxies: Sequence[CuttingProxy], visits: Sequence[Visit]
) -> list[tuple[int, Any]]:
    """What a client has after it joined what it got, each time from its last id."""
    seen: list[StreamEvent] = []
    for visit in (*visits, Visit(0, EVENTS + 1, 0, "none")):
        seen = [] if visit.back is None else seen[: max(0, len(seen) - visit.back)]
        _break(proxies[visit.replica], visit.fault)
        for item in await read(replicas[visit.replica], "r", seen[-1].id if seen else None, items=visit.items):
            assert isinstance(item, StreamEvent), item
            if item is not END_SENTINEL:
                seen.append(item)
    return _plain(seen)


def _break(proxy: CuttingProxy, fault: str) -> None:
    proxy.reply_delay_seconds = 0.02 if fault == "delay" else 0.0
    for link in proxy.links:
        link.swallows_replies = fault == "swallow"
        if fault == "half":
            link.replies_left = 20
    if fault == "cut":
        proxy.cut()


def _plain(items: Sequence[object]) -> list[tuple[int, Any]]:
    events = [item for item in items if isinstance(item, StreamEvent) and item is not END_SENTINEL]
    return [(int(event.id.partition("-")[2]), event.data) for event in events]
