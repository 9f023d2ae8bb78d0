"""PostgreSQL through psycopg 3: one pool, the loop it lives on, and psycopg's errors as ours."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from .._extras import extra
from .._sync import BorrowedLoop, LoopThread, Runner
from ..errors import StoreUnavailableError

with extra("postgres"):
    import psycopg
    from psycopg import AsyncConnection
    from psycopg.rows import tuple_row
    from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

if TYPE_CHECKING:
    from psycopg.rows import TupleRow

    Connection = AsyncConnection[TupleRow]
    Pool = AsyncConnectionPool[Connection]

T = TypeVar("T")

_RESTARTING = {"57P01", "57P02", "57P03"}  # admin_shutdown, crash_shutdown, cannot_connect_now


@contextmanager
def postgres_errors() -> Iterator[None]:
    """A lost, refused or slow server becomes `StoreUnavailableError`; anything else passes as it is."""
    try:
        yield
    except (PoolTimeout, PoolClosed, psycopg.OperationalError, psycopg.InterfaceError, TimeoutError, OSError) as error:
        raise StoreUnavailableError(f"PostgreSQL is not available: {_reason(error)}") from error


class PostgresDatabase:
    """A pool on a private loop, usable from any loop and thread; or a borrowed pool, on its owner's loop.

    `execute` runs a piece of work on one pooled autocommit connection. Parts that share a DSN share one of these:
    each calls `open` and `close`, the first opens and the last closes. A borrowed pool is never closed.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: Pool | None = None,
        max_size: int = 5,
        timeout_seconds: float = 10.0,
    ) -> None:
        if (dsn is None) == (pool is None):
            raise ValueError("pass either dsn or pool")
        self._dsn = dsn
        self._pool = pool
        self._owns_pool = pool is None
        self._max_size = max_size
        self._timeout_seconds = timeout_seconds
        self._users = 0
        self._lock = asyncio.Lock()
        self.runner: Runner = LoopThread("deerflow-replica-postgres") if self._owns_pool else BorrowedLoop()

    async def open(self) -> None:
        """Connect; raises `StoreUnavailableError` within the timeout. Counted: close as often as you opened."""
        try:
            await self.runner.acall(self._open())
        except BaseException:
            await self._release_thread()
            raise

    async def close(self) -> None:
        """Close the pool and its thread when the last user closes."""
        if self._users:
            await self.runner.acall(self._close())
        await self._release_thread()

    async def execute(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool = True) -> T:
        """Run `work` on a pooled connection.

        With `retry` (for work that may run twice), a connection found dead is replaced and the work runs once more,
        so a restart of the server between two calls is not seen.
        """
        return await self.runner.acall(self._execute(work, retry=retry))

    def execute_sync(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool = True) -> T:
        """The same for a caller without a loop, or on the thread of another one."""
        return self.runner.call(self._execute(work, retry=retry))

    async def set_up(self, lock: str, statements: list[str]) -> None:
        """Run idempotent DDL while no other replica does: in one transaction under the advisory lock `lock`."""

        async def work(connection: Connection) -> None:
            async with exclusive(connection, lock):
                for statement in statements:
                    await connection.execute(statement.encode())

        await self.execute(work)

    async def _open(self) -> None:
        async with self._lock:
            if self._users == 0 and self._owns_pool:
                self._pool = await self._connected_pool()
            self._users += 1

    async def _connected_pool(self) -> Pool:
        with postgres_errors():
            # One plain connection first: it fails at once with the server's own reason, a pool only times out.
            async with asyncio.timeout(self._timeout_seconds):
                await (await AsyncConnection.connect(self._dsn or "", autocommit=True)).close()
            pool: Pool = AsyncConnectionPool(
                self._dsn or "",
                min_size=1,
                max_size=self._max_size,
                timeout=self._timeout_seconds,
                # The pool's attempts back off: after 5 minutes of them, a server that is back stays unseen for minutes.
                reconnect_timeout=self._timeout_seconds,
                kwargs={"autocommit": True, "prepare_threshold": None},
                open=False,
            )
            await pool.open()
        return pool

    async def _close(self) -> None:
        async with self._lock:
            self._users -= 1
            if self._users == 0 and self._owns_pool and self._pool is not None:
                await self._pool.close()
                self._pool = None

    async def _release_thread(self) -> None:
        if self._users == 0:
            await asyncio.to_thread(self.runner.close)

    async def _execute(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool) -> T:
        if self._pool is None:
            raise StoreUnavailableError("PostgreSQL is not open here: it was closed, or never opened")
        with postgres_errors():
            async with asyncio.timeout(self._timeout_seconds):
                try:
                    return await _on_connection(self._pool, work)
                except psycopg.OperationalError as error:
                    if not (retry and _is_lost(error)):
                        raise
                    await self._pool.check()
                    return await _on_connection(self._pool, work)


@asynccontextmanager
async def exclusive(connection: Connection, name: str) -> AsyncIterator[None]:
    """One transaction that holds the advisory lock `name`.

    Polls: a statement that waits inside `pg_advisory_lock()` would block, and be blocked by, a CREATE INDEX
    CONCURRENTLY of LangGraph's own set-up. The lock goes with the transaction, so poolers do no harm.
    """
    while True:
        async with connection.transaction():
            async with connection.cursor(row_factory=tuple_row) as cursor:  # a borrowed pool may make dicts of rows
                await cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [name])
                row = await cursor.fetchone()
            if row is not None and row[0]:
                yield
                return
        await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311  # jitter, not a secret


async def _on_connection(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    async with pool.connection() as connection:
        return await work(connection)


def _is_lost(error: psycopg.OperationalError) -> bool:
    return error.sqlstate is None or error.sqlstate in _RESTARTING or error.sqlstate.startswith("08")


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
