"""Taking one process's counts to the store: one write at a time, shared by all who wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ..errors import StoreUnavailableError
from ._ledger import Ledger, Snapshot


class Wanted(NamedTuple):
    """What was counted, and how many writes had begun, when somebody asked."""

    events: int
    tries: int


class Writes:
    """What of a ledger is stored, and what is not. `until` belongs to one event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn = asyncio.Lock()
        self._tries = 0
        self._failure: tuple[int, StoreUnavailableError] | None = None
        self._stored_events = 0
        self.everything_at = time.monotonic()
        """When every row was last written, also those that had not changed."""

    @property
    def missing(self) -> int:
        """How many events are not stored."""
        return self._ledger.events - self._stored_events

    def wanted(self) -> Wanted:
        return Wanted(self._ledger.events, self._tries)

    async def until(
        self, wanted: Wanted, write: Callable[[Snapshot], Awaitable[None]], *, everything: bool = False
    ) -> None:
        """Callers that wait for the same write share the next one: whoever is first writes, or fails, for all."""
        async with self._turn:
            if self._stored_events >= wanted.events and not everything:
                return
            if self._failure is not None and self._failure[0] > wanted.tries:
                raise StoreUnavailableError(str(self._failure[1])) from self._failure[1]
            self._tries += 1
            snapshot = self._ledger.snapshot(everything=everything)
            try:
                if snapshot.rows:
                    await write(snapshot)
            except BaseException as error:
                self._ledger.restore(snapshot)
                if isinstance(error, StoreUnavailableError):
                    self._failure = self._tries, error
                raise
            self._failure = None
            self._stored_events = snapshot.events
            if everything:
                self.everything_at = time.monotonic()
