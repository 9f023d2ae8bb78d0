"""Streams whose producer is gone: a process with a subscriber ends them, and is careful about it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from .keys import StreamKeys
from .publisher import APPEND, Limits

_LOG = logging.getLogger(__name__)
REASON = "orphaned"
_ORPHAN = 2

Call = Callable[..., Awaitable[list[Any]]]


class Orphans:
    """Watches the leases of the owners of silent streams.

    An owner is gone when its lease was missing for half a lease of unbroken contact: after an outage of the server
    every lease has lapsed, and no healthy run may be ended for that.
    """

    scripts = (APPEND,)

    def __init__(self, bridge_id: str, keys: StreamKeys, limits: Limits, lease_seconds: float | None) -> None:
        self._bridge_id = bridge_id
        self._keys = keys
        self._limits = limits
        self._lease_seconds = lease_seconds
        self._watched: dict[str, set[str]] = {}
        self._absent: dict[str, float] = {}
        self.ended = 0

    @property
    def due(self) -> float:
        """When `settle` has something to do, on the loop's clock."""
        return min(self._absent.values(), default=math.inf) + (self._lease_seconds or 0) / 2

    def forget(self) -> None:
        """A new look at the silent streams begins."""
        self._watched.clear()

    def watch(self, run_id: str, owner: str) -> None:
        if owner and owner != self._bridge_id and self._lease_seconds is not None:
            self._watched.setdefault(owner, set()).add(run_id)

    def lost_contact(self) -> None:
        self._absent.clear()

    async def look(self, call: Call) -> None:
        """Raises `StreamUnavailableError`."""
        now = asyncio.get_running_loop().time()
        owners = list(self._watched)
        replies = await call(*(("EXISTS", self._keys.owner(owner)) for owner in owners)) if owners else []
        missing = {owner for owner, reply in zip(owners, replies, strict=True) if reply == 0}
        self._absent = {owner: self._absent.get(owner, now) for owner in missing}

    async def settle(self, call: Call) -> None:
        """End the streams of the owners that have been missing long enough. Raises `StreamUnavailableError`."""
        now = asyncio.get_running_loop().time()
        if now < self.due:
            return
        await self.look(call)
        half = (self._lease_seconds or 0) / 2
        for owner in [owner for owner, since in self._absent.items() if now - since >= half]:
            del self._absent[owner]
            for run_id in self._watched.pop(owner):
                await self._end(call, run_id, owner)

    async def _end(self, call: Call, run_id: str, owner: str) -> None:
        keys = (*self._keys.of_run(run_id), self._keys.owner(owner))
        arguments = self._limits.arguments(self._bridge_id, owns=False)
        heads = f"0,{_ORPHAN},{len(owner.encode())},{len(REASON)}"
        (reply,) = await call(APPEND.command(keys, (*arguments, "", 0, heads, owner + REASON)))
        if isinstance(reply, Exception):
            _LOG.warning("the orphaned run %r cannot be ended from here: %s", run_id, reply)
        else:
            self.ended += int(reply[0][0]) == 0
