"""Hints between replicas, on a stream of each: the rows are the truth, this only shortens the wait for it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import StreamEndedError, StreamUnavailableError
from ..stream.base import StreamEvent

if TYPE_CHECKING:
    from ..stream.base import StreamBridge

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_REOPENED_SECONDS = (0.05, 0.2)  # after which a reader has noticed that its stream ended, and opened it anew

Hint = Mapping[str, Any]


class Control:
    """The control stream of this replica, and the way to those of others.

    `hear` gets the name and the data of each hint that somebody sent here.
    """

    def __init__(self, bridge: StreamBridge, replica_id: str, hear: Callable[[str, Hint], object]) -> None:
        self._bridge = bridge
        self._stream = _stream_of(replica_id)
        self._hear = hear

    async def send(self, replica_id: str, name: str, hint: Hint) -> None:
        """A replica that is gone, or a stream that ends all the time, is no error."""
        pauses = list(_REOPENED_SECONDS)
        while self._bridge.supports_cross_process:
            try:
                await self._bridge.publish(_stream_of(replica_id), name, dict(hint))
            except StreamEndedError:
                if not pauses:
                    _LOG.info("%s %s: not told to %s, which finds out by itself", name, dict(hint), replica_id)
                    return
                await asyncio.sleep(pauses.pop(0))
            else:
                return

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
            if isinstance(item, StreamEvent) and item.event in ("cancel", "wake"):
                self._hear(item.event, item.data)


def _stream_of(replica_id: str) -> str:
    return f"control:{replica_id}"
