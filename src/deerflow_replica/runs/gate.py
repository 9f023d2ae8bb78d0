"""What a run's writes pass through, until the run is over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

_TURNS = 5  # of the loop, in which a write that waited for another one begins


class Gate:
    """A cancelled graph leaves tasks behind that store its last checkpoints one after the other, nested ones above all.

    Closing lets them, as long as they go on without a pause, and refuses whatever comes later: no checkpoint of a run
    appears once the run is over.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._is_closed = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Raises `CancelledError` once the gate is closed: nobody waits for the task any more that asks."""
        if self._is_closed:
            raise asyncio.CancelledError("the run is over")
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def close(self) -> None:
        """Returns when nobody is inside. Idempotent."""
        turns = 0
        while turns < _TURNS and not self._is_closed:
            turns = turns + 1 if self._empty.is_set() else 0
            await self._empty.wait()
            await asyncio.sleep(0)
        self._is_closed = True
        await self._empty.wait()
