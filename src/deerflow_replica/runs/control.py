"""Hints between replicas, on a stream of each: the rows are the truth, this only shortens the wait for it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import StreamEndedError, StreamUnavailableError
from ..stream.base import StreamEvent

if TYPE_CHECKING:
    from ..stream.base import StreamBridge

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0


class Control:
    """The control stream of this replica, and the way to those of others."""

    def __init__(self, bridge: StreamBridge, replica_id: str, stop: Callable[[str], object]) -> None:
        self._bridge = bridge
        self._stream = _stream_of(replica_id)
        self._stop = stop

    async def send(self, replica_id: str, run_id: str) -> None:
        """Hint that a run was cancelled. A replica that is gone, or a stream that just ended, is no error."""
        if not self._bridge.supports_cross_process:
            return
        try:
            await self._bridge.publish(_stream_of(replica_id), "cancel", {"run_id": run_id})
        except StreamEndedError:
            _LOG.info("run %s: its cancellation waits for the next renewal of %s", run_id, replica_id)

    async def listen(self) -> None:
        """Until cancelled. A stream ends when its last sender goes: then it is removed and read anew."""
        while self._bridge.supports_cross_process:
            try:
                await self._read()
                await self._bridge.cleanup(self._stream)
            except StreamUnavailableError as error:
                _LOG.warning("no hints from other replicas: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _read(self) -> None:
        async for item in self._bridge.subscribe(self._stream, heartbeat_interval=math.inf):
            if isinstance(item, StreamEvent) and item.event == "cancel":
                self._stop(item.data["run_id"])


def _stream_of(replica_id: str) -> str:
    return f"control:{replica_id}"
