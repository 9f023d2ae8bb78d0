"""One database object for several users: the first opens it, the last closes it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from .._sync import AnyLoopLock, Runner


class SharedDatabase(ABC):
    """What is opened and closed by count, with the runner that its work is done on.

    Open and close it from any loop. A cancelled `open` counts for nothing; a cancelled `close` is carried through.
    """

    runner: Runner

    def __init__(self) -> None:
        self._users = 0
        self._counting = AnyLoopLock()
        self._connecting = AnyLoopLock()

    async def open(self) -> None:
        """Connect, if nobody has; raises `StoreUnavailableError`. Counted: close as often as you opened."""
        async with self._counting:
            self._users += 1
        try:
            await self.runner.acall(self._connected())
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._give_back))
            raise

    async def close(self) -> None:
        """Disconnect and end the thread when the last user closes."""
        if self._users:
            await asyncio.shield(asyncio.to_thread(self._give_back))

    @abstractmethod
    async def _connect(self) -> None:
        """Make the connection, unless it is there."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close what `_connect` made, if anything."""

    async def _connected(self) -> None:
        async with self._connecting:
            await self._connect()

    async def _disconnected(self) -> None:
        """After a cancelled `_connect` has cleared up."""
        async with self._connecting:
            await self._disconnect()

    def _give_back(self) -> None:
        with self._counting:
            self._users -= 1
            if self._users == 0:
                try:
                    self.runner.call(self._disconnected())
                finally:
                    self.runner.close()
