"""Connections of a pool that stay at hand between two uses: under load the pool is not asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from .._extras import extra
from .postgres import COLLIDED, is_lost, postgres_errors

with extra("postgres"):
    import psycopg
    from psycopg.pq import TransactionStatus
    from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from .postgres import Connection, Pool

T = TypeVar("T")

_IDLE_SECONDS = 0.1


class KeptConnections:
    """Runs work on connections of a pool, on the pool's loop. What is not used for 0.1 s goes back to the pool."""

    def __init__(self, pool: Pool, *, timeout_seconds: float, keeps: bool = True) -> None:
        """`keeps=False` for a pool that others use too."""
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self._keeps = keeps
        self._kept: list[Connection] = []
        self._unused = 0  # how many of the first were not needed since the last look
        self._look: asyncio.TimerHandle | None = None
        self._returning: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool = True) -> T:
        """Run `work` on a connection, with rows as tuples, within the timeout.

        With `retry` (for work that may run twice), a connection found dead is replaced and the work runs once more,
        and what collides with others' work runs until it does not. Raises `StoreUnavailableError`.
        """
        with postgres_errors():
            async with asyncio.timeout(self._timeout_seconds):
                return await (self._until_done(work) if retry else self._once(work))

    async def give_back(self) -> None:
        """All that are kept and not in use."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        kept, self._kept = self._kept, []
        await self._return(kept)
        await asyncio.gather(*self._returning)

    async def _until_done(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        is_second = False
        while True:
            try:
                return await self._once(work)
            except psycopg.OperationalError as error:
                if error.sqlstate in COLLIDED:
                    await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311  # jitter, not a secret
                elif is_second or not is_lost(error):
                    raise
                else:
                    is_second = True
                    await self.give_back()
                    await self._pool.check()

    async def _once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        connection = await self._taken()
        lent, connection.row_factory = connection.row_factory, tuple_row
        try:
            result = await work(connection)
            if not connection.autocommit:  # a borrowed pool's may be like that
                await connection.commit()
        except BaseException:
            connection.row_factory = lent
            await self._pool.putconn(connection)  # which rolls back, or replaces it
            raise
        connection.row_factory = lent
        await self._keep(connection)
        return result

    async def _taken(self) -> Connection:
        """One that is not known to be dead: what is sent on it has a good chance to arrive."""
        while True:
            connection = self._kept.pop() if self._kept else await self._pool.getconn()
            self._unused = min(self._unused, len(self._kept))
            if _is_alive(connection):
                return connection
            await self._pool.putconn(connection)  # which replaces it

    async def _keep(self, connection: Connection) -> None:
        is_idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if not self._keeps or not is_idle or self._pool.closed:
            await self._pool.putconn(connection)
            return
        self._kept.append(connection)
        if self._look is None:
            self._look_later()

    def _look_later(self) -> None:
        self._unused = len(self._kept)
        self._look = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._look_now)

    def _look_now(self) -> None:
        self._look = None
        unused, self._kept = self._kept[: self._unused], self._kept[self._unused :]
        if unused:
            task = asyncio.get_running_loop().create_task(self._return(unused))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)
        if self._kept:
            self._look_later()

    async def _return(self, connections: list[Connection]) -> None:
        for connection in connections:
            await self._pool.putconn(connection)


def _is_alive(connection: Connection) -> bool:
    """Whether the server has not closed it, as far as that has been heard of here."""
    try:
        connection.pgconn.consume_input()  # its last words
        connection.pgconn.consume_input()  # the end behind them
    except psycopg.OperationalError:
        return False
    return True
