"""The latest event of a stream, read without waiting for more."""

from __future__ import annotations

import math
from contextlib import aclosing
from typing import TYPE_CHECKING

from ..stream.base import END_SENTINEL, StreamEvent, StreamGap

if TYPE_CHECKING:
    from ..stream.base import StreamBridge, StreamItem

_FOREIGN = "1-0"  # no stream was created one microsecond after 1970


async def latest_event_id(bridge: StreamBridge, run_id: str) -> str | None:
    """The id after which only what comes from now on is delivered; None while no event is retained."""
    item = await _first_item(bridge, run_id, _FOREIGN)
    return item.latest_available_event_id if isinstance(item, StreamGap) else None


async def last_event(bridge: StreamBridge, run_id: str) -> StreamEvent | None:
    """The latest event itself, also of a stream that has ended; None while no event is retained."""
    latest = await latest_event_id(bridge, run_id)
    if latest is None:
        return None
    epoch, _, seq = latest.partition("-")
    item = await _first_item(bridge, run_id, f"{epoch}-{int(seq) - 1}" if int(seq) else "0-0")
    return item if isinstance(item, StreamEvent) and item is not END_SENTINEL else None


async def ends_with_error(bridge: StreamBridge, run_id: str) -> bool:
    """Whether the latest event is `error`, after which there is no other."""
    last = await last_event(bridge, run_id)
    return last is not None and last.event == "error"


async def _first_item(bridge: StreamBridge, run_id: str, last_event_id: str) -> StreamItem | None:
    subscription = bridge.subscribe(run_id, last_event_id=last_event_id, heartbeat_interval=math.inf)
    async with aclosing(subscription) as items:
        return await anext(items, None)
