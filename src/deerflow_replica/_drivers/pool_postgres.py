"""A pool of psycopg's that ends with its event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from .._extras import extra

with extra("postgres"):
    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool


class EndingPool(AsyncConnectionPool[AsyncConnection[Any]]):
    """Closes itself when its loop is about to end.

    psycopg_pool 3.3 takes the cancellation of a task in the midst of a connect for an error of that connect and goes
    on: `asyncio.run` of a program that leaves such a pool open would never return.
    """

    _ending: asyncio.Task[None] | None = None

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        await super().open(wait, timeout)
        if self._ending is None:
            self._ending = asyncio.create_task(self._close_at_the_end(), name=f"{self.name}-end")

    async def close(self, timeout: float = 5.0) -> None:
        ending, self._ending = self._ending, None
        if ending is not None and ending is not asyncio.current_task():
            ending.cancel()
            await asyncio.wait([ending])
        await super().close(timeout)

    async def _close_at_the_end(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()  # until the loop cancels what is left
        except asyncio.CancelledError:
            if self._ending is not None:
                await self.close()
            raise
