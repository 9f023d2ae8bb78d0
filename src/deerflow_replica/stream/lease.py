"""One lease per bridge: while it is renewed, the process that owns these runs is alive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from .._drivers.redis import Command, Lane
from ..errors import StreamUnavailableError

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 0.25


class Lease:
    """Renewed every third of its time while a run is held: with the batches, and by a task in between.

    `seconds` None: no lease, nobody ends these streams as orphaned.
    """

    def __init__(self, key: str, seconds: float | None, lane: Lane) -> None:
        self._key = key
        self._seconds = seconds
        self._lane = lane
        self._runs: set[str] = set()
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        self._beside: Callable[[], Awaitable[None]] | None = None

    def beside(self, work: Callable[[], Awaitable[None]]) -> None:
        """Done after every renewal; may raise `StreamUnavailableError`."""
        self._beside = work

    @property
    def is_on(self) -> bool:
        return self._seconds is not None

    def hold(self, run_id: str) -> None:
        if self._seconds is None:
            return
        self._runs.add(run_id)
        if self._task is None:
            self._task = asyncio.create_task(self._keep(self._seconds), name="stream-lease")

    def release(self, run_id: str) -> None:
        self._runs.discard(run_id)

    def renewal(self) -> list[Command]:
        """The command that renews, if it is time."""
        if self._seconds is None or asyncio.get_running_loop().time() < self._due:
            return []
        return [("SET", self._key, "1", "PX", max(1, round(self._seconds * 1000)))]

    def renewed(self) -> None:
        self._due = asyncio.get_running_loop().time() + (self._seconds or 0) / 3

    async def close(self) -> None:
        """Stop renewing; the lease lapses by itself, which leaves time for a hand-over."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        pause = min(_RETRY_SECONDS, seconds / 6)
        try:
            while self._runs:
                command = self.renewal()
                if command and not await self._renew(command):
                    await asyncio.sleep(pause)
                else:
                    await self._do_beside()
                    await asyncio.sleep(max(pause, self._due - clock()))
        finally:
            self._task = None

    async def _renew(self, command: list[Command]) -> bool:
        try:
            (reply,) = await self._lane.call(*command)
        except StreamUnavailableError as error:
            _LOG.debug("the lease was not renewed: %s", error)
            return False
        if isinstance(reply, Exception):
            _LOG.warning("the lease cannot be written: %s", reply)
            return False
        self.renewed()
        return True

    async def _do_beside(self) -> None:
        try:
            if self._beside is not None:
                await self._beside()
        except StreamUnavailableError as error:
            _LOG.debug("not done beside the lease: %s", error)
