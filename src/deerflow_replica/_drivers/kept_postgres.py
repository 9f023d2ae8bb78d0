"""Connections of a pool that stay at hand between two uses: under load the pool is not asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .._extras import extra
from ..errors import StoreUnavailableError
from .direct_postgres import DirectConnection, Exchange, Outcome, Rows
from .pipelined_postgres import Statement
from .postgres import COLLIDED, is_lost, postgres_errors

with extra("postgres"):
    import psycopg
    from psycopg.pq import TransactionStatus
    from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from .postgres import Connection, Pool

T = TypeVar("T")
Answer: TypeAlias = list[Rows] | StoreUnavailableError | None

_IDLE_SECONDS = 0.1
_CANCEL_SECONDS = 0.5


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
        self._exchanges: set[Exchange] = set()

    @property
    def are_at_hand(self) -> bool:
        """Whether `begin` can send something."""
        return bool(self._kept)

    def begin(self, statements: Sequence[Statement], done: Callable[[Answer], None]) -> bool:
        """Send them at once, in one transaction, on a connection that is at hand, and tell `done` later.

        It gets the rows of each; or None, when they came to nothing: then `run` says why, or succeeds; or the error
        of a server that does not answer within the timeout. False: nothing is at hand, or a statement has no plan, or
        what is at hand is of no use. `done` is not called then, nor after an error.
        """
        planned = [(statement.plan, statement.parameters) for statement in statements if statement.plan is not None]
        if len(planned) < len(statements) or not self._kept:
            return False
        asked = [(plan, plan.encoded(parameters)) for plan, parameters in planned]
        connection = self._popped()
        line = connection.line if isinstance(connection, DirectConnection) else None
        if line is None:
            self._put(connection)
            return False

        def end(outcome: Outcome) -> None:
            self._exchanges.discard(exchange)
            if isinstance(outcome, Exception):
                self._spawn(_dropped(self._pool, connection))
            else:
                self._put(connection)
            done(_answer(outcome))

        exchange = Exchange(line, end)
        try:
            exchange.begin(asked, self._timeout_seconds)
        except BaseException as error:
            self._spawn(_dropped(self._pool, connection))
            if isinstance(error, psycopg.Error):
                return False
            raise
        self._exchanges.add(exchange)
        return True

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool = True) -> T:
        """Run `work` on a connection, with rows as tuples, within the timeout.

        With `retry` (for work that may run twice), a connection found dead is replaced and the work runs once more,
        and what collides with others' work runs until it does not. Raises `StoreUnavailableError`.
        """
        with postgres_errors():
            async with asyncio.timeout(self._timeout_seconds):
                return await (self._until_done(work) if retry else self._once(work))

    async def close(self) -> None:
        """Give everything back; an exchange that is still under way comes to its end, and to nothing."""
        for exchange in list(self._exchanges):
            exchange.give_up(ConnectionAbortedError())
        await self.give_back()

    async def give_back(self) -> None:
        """All that are kept and not in use."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        kept, self._kept = self._kept, []
        await self._return(kept)
        if self._returning:
            await asyncio.wait(self._returning)  # whoever waits may be cancelled, but they may not

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
            connection = self._popped() if self._kept else await self._pool.getconn()
            if _is_alive(connection):
                return connection
            await self._pool.putconn(connection)  # which replaces it

    def _popped(self) -> Connection:
        connection = self._kept.pop()
        self._unused = min(self._unused, len(self._kept))
        return connection

    async def _keep(self, connection: Connection) -> None:
        is_idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if not self._keeps or not is_idle or self._pool.closed:
            await self._pool.putconn(connection)
        else:
            self._put(connection)

    def _put(self, connection: Connection) -> None:
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
            self._spawn(self._return(unused))
        if self._kept:
            self._look_later()

    def _spawn(self, returning: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(returning)
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _return(self, connections: list[Connection]) -> None:
        for connection in connections:
            await self._pool.putconn(connection)


async def _dropped(pool: Pool, connection: Connection) -> None:
    """What the server still does for it is to end, too."""
    try:
        with suppress(psycopg.Error, OSError):
            async with asyncio.timeout(_CANCEL_SECONDS):  # an older libpq has none
                await connection.cancel_safe(timeout=_CANCEL_SECONDS)
    finally:
        await connection.close()
        await pool.putconn(connection)  # which replaces it


def _answer(outcome: Outcome) -> Answer:
    """A connection that is lost can be replaced; what was waited for long enough is not waited for again."""
    if not isinstance(outcome, Exception):
        return outcome
    if not isinstance(outcome, TimeoutError):
        return None
    try:
        with postgres_errors():
            raise outcome
    except StoreUnavailableError as error:
        return error


def _is_alive(connection: Connection) -> bool:
    """Whether the server has not closed it, as far as that has been heard of here."""
    try:
        connection.pgconn.consume_input()  # its last words
        connection.pgconn.consume_input()  # the end behind them
    except psycopg.OperationalError:
        return False
    return True
