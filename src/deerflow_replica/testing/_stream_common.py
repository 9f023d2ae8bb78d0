"""What the parts of the stream contract share."""

from __future__ import annotations

import asyncio
import inspect
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

from ..stream import END_SENTINEL, HEARTBEAT_SENTINEL, StreamBridge, StreamEvent, StreamGap, StreamItem

Build = Callable[..., StreamBridge]
Open = Callable[..., Any]

DEADLINE_SECONDS = 60.0  # what hangs never comes; a machine that is busy may be late


class StreamFixtures:
    """`build(**options)` gives one more bridge on the test's own server; keywords are those all backends share."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def build(self) -> Build:
        raise NotImplementedError("a subclass of StreamBridgeContract provides the fixture `build`")

    @pytest.fixture
    async def open_bridge(self, build: Build) -> AsyncIterator[Open]:
        """`await open_bridge(**options)`: an open bridge, closed after the test."""
        async with AsyncExitStack() as stack:

            async def opened(**options: Any) -> StreamBridge:
                return await stack.enter_async_context(build(**options))

            yield opened

    @pytest.fixture
    async def bridge(self, open_bridge: Open) -> StreamBridge:
        made: StreamBridge = await open_bridge()
        return made

    @pytest.fixture
    def run_id(self) -> str:
        return f"run-{uuid.uuid4().hex[:12]}"


async def read(
    bridge: StreamBridge,
    run_id: str,
    last_event_id: str | None = None,
    *,
    items: int | None = None,
    heartbeat_interval: float = math.inf,
) -> list[StreamItem]:
    """What a subscription yields, to its end or for that many items."""
    found: list[StreamItem] = []
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        aclosing(bridge.subscribe(run_id, last_event_id=last_event_id, heartbeat_interval=heartbeat_interval)) as feed,
    ):
        async for item in feed:
            found.append(item)
            if len(found) == items:
                break
    return found


@asynccontextmanager
async def reading(
    bridge: StreamBridge, run_id: str, last_event_id: str | None = None, **options: Any
) -> AsyncIterator[Callable[..., Any]]:
    """A subscription; each call of the result awaits its next item, `beats=True` heartbeats too."""
    async with aclosing(
        bridge.subscribe(run_id, last_event_id=last_event_id, **{"heartbeat_interval": 0.05, **options})
    ) as feed:

        async def next_item(*, beats: bool = False) -> Any:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    item = await anext(feed)
                    if beats or item is not HEARTBEAT_SENTINEL:
                        return item

        yield next_item


async def placed(bridge: StreamBridge, run_id: str) -> None:
    """Return when everybody who reads the run on this bridge has its place, which no heartbeat tells.

    Readers are placed in turn, and an id that was never issued is answered at once.
    """
    assert isinstance((await read(bridge, run_id, "1-0"))[0], StreamGap)


async def first_event(bridge: StreamBridge, run_id: str, next_item: Callable[..., Any]) -> StreamEvent:
    """Publish until the reader has got something: its stream may expire sooner than it is read."""
    first = asyncio.ensure_future(next_item())
    while not first.done():
        await publish_all(bridge, run_id, 1)
        await asyncio.wait([first], timeout=0.2)
    event = await first
    assert isinstance(event, StreamEvent)
    return event


async def publish_all(bridge: StreamBridge, run_id: str, count: int, *, start: int = 0, end: bool = False) -> None:
    for number in range(start, start + count):
        await bridge.publish(run_id, "n", number)
    await (bridge.publish_end(run_id) if end else bridge.flush(run_id))


async def ids(bridge: StreamBridge, run_id: str, count: int) -> list[str]:
    """The ids of all events of a stream that has `count` of them, trimmed ones too."""
    first = (await read(bridge, run_id, items=1))[0]
    assert isinstance(first, StreamEvent)
    epoch = first.id.partition("-")[0]
    return [f"{epoch}-{seq}" for seq in range(count)]


def numbers(items: list[StreamItem]) -> list[Any]:
    """The data of the events, without END; a gap fails."""
    assert not any(isinstance(item, StreamGap) for item in items), items
    return [item.data for item in items if isinstance(item, StreamEvent) and item is not END_SENTINEL]


async def until(check: Callable[[], Awaitable[object] | object], *, timeout_seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until `check` gives something true.

    A few looks are taken after the time is over, too: a loop that stood still has what was due meanwhile yet to do.
    """
    clock = asyncio.get_running_loop().time
    deadline, late_looks = clock() + timeout_seconds, 20
    while late_looks:
        outcome = check()
        if await outcome if inspect.isawaitable(outcome) else outcome:
            return
        late_looks -= clock() >= deadline
        await asyncio.sleep(0.01)
    raise TimeoutError(f"not within {timeout_seconds} s")
