"""Our bridge in the shape of DeerFlow's. Importing this module imports DeerFlow: take the class from `.deerflow`."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from .._extras import deerflow
from ..errors import StreamEndedError, StreamError
from .base import END_SENTINEL, HEARTBEAT_SENTINEL, StreamBridge, StreamGap, StreamItem

with deerflow():
    from deerflow.runtime.stream_bridge.base import END_SENTINEL as THEIR_END
    from deerflow.runtime.stream_bridge.base import HEARTBEAT_SENTINEL as THEIR_HEARTBEAT
    from deerflow.runtime.stream_bridge.base import StreamBridge as TheirBridge
    from deerflow.runtime.stream_bridge.base import StreamEvent as TheirEvent
    from deerflow.runtime.stream_bridge.base import StreamGap as TheirGap

_LOG = logging.getLogger(__name__)
_NOBODY = "deerflow-replica-ping"


class DeerFlowStreamBridge(TheirBridge):
    """A `StreamBridge` of ours for DeerFlow's gateway and workers: its event and gap classes, its two sentinels.

    `heartbeat_interval` seconds hold for the subscriptions that give none. `bridge` is the bridge behind it, for
    what DeerFlow's has not (`flush`, `end_reason`, `stats`); `close()` closes it.
    `invalid_cursor="tail"`, `resume_gap="strict"` and `live_window=queue_maxsize` make it decide as DeerFlow's do.
    """

    def __init__(self, bridge: StreamBridge, *, heartbeat_interval: float = 15.0) -> None:
        self.bridge = bridge
        self.heartbeat_interval = heartbeat_interval
        self.supports_cross_process = bridge.supports_cross_process

    async def publish(self, run_id: str, event: str, data: Any) -> None:
        """Raises what ours does: `StreamEndedError` tells a worker that its run was taken from it."""
        await self.bridge.publish(run_id, event, data)

    async def publish_end(self, run_id: str) -> None:
        """A run that somebody else has ended is ended: DeerFlow's worker still has its clean-up to do."""
        try:
            await self.bridge.publish_end(run_id)
        except StreamEndedError as error:
            _LOG.warning("run %s was ended by somebody else: %s", run_id, error)

    def subscribe(
        self, run_id: str, *, last_event_id: str | None = None, heartbeat_interval: float | None = None
    ) -> AsyncGenerator[TheirEvent | TheirGap, None]:
        seconds = self.heartbeat_interval if heartbeat_interval is None else heartbeat_interval
        return _followed(self.bridge.subscribe(run_id, last_event_id=last_event_id, heartbeat_interval=seconds))

    async def stream_exists(self, run_id: str) -> bool:
        return await self.bridge.stream_exists(run_id)

    async def cleanup(self, run_id: str, *, delay: float = 0) -> None:
        """Returns at once: the server keeps the delay, also when this process does not live to see it."""
        await self.bridge.cleanup(run_id, delay=delay)

    async def ping(self) -> bool:
        """Whether the server answers: DeerFlow's readiness probe asks."""
        try:
            await self.bridge.stream_exists(_NOBODY)
        except StreamError:
            return False
        return True

    async def close(self) -> None:
        await self.bridge.close()


async def _followed(
    items: AsyncGenerator[StreamItem, None],
) -> AsyncGenerator[TheirEvent | TheirGap, None]:
    async with aclosing(items):
        async for item in items:
            yield _translated(item)


def _translated(item: StreamItem) -> TheirEvent | TheirGap:
    if isinstance(item, StreamGap):
        return TheirGap(item.requested_event_id, item.earliest_available_event_id, item.latest_available_event_id)
    if item is HEARTBEAT_SENTINEL:
        return THEIR_HEARTBEAT
    if item is END_SENTINEL:
        return THEIR_END
    return TheirEvent(item.id, item.event, item.data)
