"""PostgreSQL through psycopg 3: one pool, the loop it lives on, and psycopg's errors as ours."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

import orjson

from .._extras import extra
from .._sync import BorrowedLoop, LoopThread, Runner
from ..errors import ConfigError, StoreUnavailableError
from .direct_postgres import DirectConnection
from .pool_postgres import EndingPool
from .shared import SharedDatabase
from .texts_postgres import know_texts

with extra("postgres"):
    import psycopg
    from psycopg import AsyncConnection
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.rows import tuple_row
    from psycopg.types.json import set_json_loads
    from psycopg_pool import PoolClosed, PoolTimeout

if TYPE_CHECKING:
    from psycopg.rows import TupleRow
    from psycopg_pool import AsyncConnectionPool

    Connection = AsyncConnection[TupleRow]
    Pool = AsyncConnectionPool[Connection]

T = TypeVar("T")

COLLIDED = frozenset({"40001", "40P01"})
"""serialization_failure, deadlock_detected: rolled back, and worth another try."""
_MOST_PREPARED = 10  # statements on one connection; the least used goes first
_LONGEST_CANCEL = 0.5  # seconds
_RESTARTING = {"57P01", "57P02", "57P03"}  # admin_shutdown, crash_shutdown, cannot_connect_now


@contextmanager
def postgres_errors() -> Iterator[None]:
    """A lost, refused or slow server becomes `StoreUnavailableError`, a missing right `ConfigError`; anything else
    passes as it is.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigError(f"PostgreSQL forbids it: {_reason(error)}") from error
    except (PoolTimeout, PoolClosed, psycopg.OperationalError, psycopg.InterfaceError, TimeoutError, OSError) as error:
        if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith("54"):
            raise  # program_limit_exceeded: the server is well, what it was given is too large
        raise StoreUnavailableError(f"PostgreSQL is not available: {_reason(error)}") from error


def is_dsn(text: str) -> bool:
    """Whether libpq can read it: a `postgresql://` URL, or `key=value` pairs."""
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError:  # its text quotes the password
        return False
    return True


class PostgresDatabase(SharedDatabase):
    """A pool on a private loop, usable from any loop and thread; or a borrowed pool, on its owner's loop.

    `execute` runs a piece of work on one pooled connection, with rows as tuples. Parts that share a DSN share one of
    these. A borrowed pool is never closed.
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
        super().__init__()
        self._dsn = dsn
        self._pool = pool
        self._owns_pool = pool is None
        self._max_size = max_size
        self._timeout_seconds = timeout_seconds
        self.runner: Runner = LoopThread("deerflow-replica-postgres") if self._owns_pool else BorrowedLoop()

    async def execute(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool = True) -> T:
        """Run `work` on a pooled connection.

        With `retry` (for work that may run twice), a connection found dead is replaced and the work runs once more,
        so a restart of the server between two calls is not seen; and what collides with others' work, as everything
        may where transactions are serializable by default, runs until it does not.
        """
        self._opened()  # asked here, too: what is closed starts no thread to say so
        return await self.runner.acall(self._execute(work, retry=retry))

    def execute_sync(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool = True) -> T:
        """The same for a caller without a loop, or on the thread of another one."""
        self._opened()
        return self.runner.call(self._execute(work, retry=retry))

    async def set_up(self, lock: str, statements: list[str]) -> None:
        """Run idempotent DDL while no other replica does: in one transaction under the advisory lock `lock`."""

        async def work(connection: Connection) -> None:
            async with exclusive(connection, lock):
                for statement in statements:
                    await connection.execute(statement.encode())

        await self.execute(work)

    async def _connect(self) -> None:
        if self._pool is None:
            self._pool = await connected_pool(
                self._dsn or "", max_size=self._max_size, timeout_seconds=self._timeout_seconds
            )

    async def _disconnect(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    def _opened(self) -> Pool:
        if self._pool is None:
            raise StoreUnavailableError("PostgreSQL is not open here: it was closed, or never opened")
        return self._pool

    def _give_back(self) -> None:
        if self._owns_pool:
            super()._give_back()

    async def _execute(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool) -> T:
        return await executed(self._opened(), work, retry=retry, timeout_seconds=self._timeout_seconds)


async def connected_pool(
    dsn: str,
    *,
    min_size: int = 1,
    max_size: int,
    timeout_seconds: float,
    prepare_threshold: int | None = None,
) -> Pool:
    """An open pool of autocommit connections, on the running loop. Raises `ConfigError` or `StoreUnavailableError`."""
    if not is_dsn(dsn):
        raise ConfigError("dsn: neither a postgresql:// URL nor a connection string of PostgreSQL's")
    with postgres_errors():
        # One plain connection first: it fails at once with the server's own reason, a pool only times out.
        async with asyncio.timeout(timeout_seconds):
            await (await AsyncConnection.connect(dsn, autocommit=True)).close()
        pool: Pool = EndingPool(
            dsn,
            connection_class=DirectConnection,
            min_size=min_size,
            max_size=max_size,
            timeout=timeout_seconds,
            # The pool's attempts back off: after 5 minutes of them, a server that is back stays unseen for minutes.
            reconnect_timeout=timeout_seconds,
            kwargs={
                "autocommit": True,
                "prepare_threshold": prepare_threshold,
                "connect_timeout": _patience(dsn, timeout_seconds),
            },
            configure=_configure,
            open=False,
        )
        try:
            await pool.open()
        except BaseException:
            await pool.close()
            raise
    return pool


async def executed(pool: Pool, work: Callable[[Connection], Awaitable[T]], *, retry: bool, timeout_seconds: float) -> T:
    """Run `work` on a connection of a pool of this loop, as `PostgresDatabase.execute` does."""
    with postgres_errors():
        async with _within(timeout_seconds):
            if not retry:
                return await _on_connection(pool, work)
            while True:
                try:
                    return await _revived(pool, work)
                except psycopg.OperationalError as error:
                    if error.sqlstate not in COLLIDED:
                        raise
                await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311  # jitter, not a secret


@asynccontextmanager
async def exclusive(connection: Connection, name: str) -> AsyncIterator[None]:
    """One transaction that holds the advisory lock `name`.

    The lock goes with the transaction, so poolers do no harm. Polls, each try in a transaction of its own: a statement
    that waits inside `pg_advisory_lock()` holds a snapshot, for which a CREATE INDEX CONCURRENTLY of LangGraph's own
    set-up waits, while it waits for the lock of that very set-up. The transaction that has the lock delays such an
    index only until it ends.
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


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """`TimeoutError` at the end of this time, also where the server says nothing.

    Work that is cancelled asks the server to cancel, and waits up to ten seconds for it: so it is cancelled a little
    before the end, and at the end again, which makes psycopg close the connection.
    """
    async with asyncio.timeout(seconds), asyncio.timeout(seconds - min(_LONGEST_CANCEL, seconds / 4)):
        yield


def _patience(dsn: str, timeout_seconds: float) -> int | str:
    """How long the pool waits for a new connection, in seconds; psycopg's own two minutes keep it from trying again."""
    return conninfo_to_dict(dsn).get("connect_timeout") or min(math.ceil(timeout_seconds), 120)


async def _revived(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    try:
        return await _on_connection(pool, work)
    except psycopg.OperationalError as error:
        if not is_lost(error):
            raise
        await pool.check()
        return await _on_connection(pool, work)


async def _on_connection(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    async with pool.connection() as connection:
        lent, connection.row_factory = connection.row_factory, tuple_row
        try:
            return await work(connection)
        finally:
            connection.row_factory = lent


async def _configure(connection: Connection) -> None:
    """jsonb writes 1e300 with 301 digits, of which the standard library makes an integer that no JSON holds."""
    set_json_loads(orjson.loads, connection)
    connection.prepared_max = _MOST_PREPARED
    know_texts(connection)


def is_lost(error: psycopg.OperationalError) -> bool:
    """Whether the connection is gone, and with it what the server made of the statement."""
    return error.sqlstate is None or error.sqlstate in _RESTARTING or error.sqlstate.startswith("08")


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
