"""LangGraph's own saver on PostgreSQL: over a pool on the caller's loop, set up by one replica at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, LiteralString, cast

from .._extras import extra
from .postgres import exclusive, postgres_errors
from .statements import quoted

with extra("postgres"):
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg import AsyncConnection
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

if TYPE_CHECKING:
    from psycopg.rows import DictRow

    DictConnection = AsyncConnection[DictRow]
    DictPool = AsyncConnectionPool[DictConnection]

_LONGEST_MILLISECONDS = 2**31 - 1  # of a setting of PostgreSQL


async def reach(dsn: str, schemas: list[str]) -> None:
    """Connect once and make sure that the schemas are there. A server that is down fails at once, with its reason."""
    with postgres_errors():
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            for schema in schemas:
                cursor = await connection.execute("SELECT to_regnamespace(%s) IS NULL", [quoted(schema)])
                row = await cursor.fetchone()
                if row is not None and row[0]:
                    async with exclusive(connection, "deerflow_replica:schema"):
                        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}".encode())


class _Pool(AsyncConnectionPool["DictConnection"]):
    """What LangGraph's saver asks for a connection after the replica was left, or while the server is away."""

    async def getconn(self, timeout: float | None = None) -> DictConnection:
        with postgres_errors():
            return await super().getconn(timeout)


@asynccontextmanager
async def open_pool(
    dsn: str, schema: str | None, *, max_size: int, timeout_seconds: float, idle_seconds: float
) -> AsyncIterator[DictPool]:
    """A pool as LangGraph wants it, in `schema`. A connection that died is replaced before it is used.

    The server ends a transaction whose client says nothing for `idle_seconds`.
    """

    async def configure(connection: DictConnection) -> None:
        milliseconds = min(round(idle_seconds * 1000), _LONGEST_MILLISECONDS)
        await connection.execute(f"SET idle_in_transaction_session_timeout TO {milliseconds}".encode())
        if schema:
            await connection.execute(f"SET search_path TO {quoted(schema)}".encode())

    pool = _Pool(
        dsn,
        connection_class=cast("type[DictConnection]", AsyncConnection),
        min_size=1,
        max_size=max(2, max_size),
        timeout=timeout_seconds,
        kwargs={"autocommit": True, "prepare_threshold": None, "row_factory": dict_row},
        configure=configure,
        check=_ask,
        open=False,
    )
    with postgres_errors():
        await pool.open(wait=True, timeout=timeout_seconds)
    try:
        yield pool
    finally:
        await pool.close()


async def _ask(connection: DictConnection) -> None:
    """Fails on a connection that died."""
    await connection.execute("")


async def saver_on(pool: DictPool, dsn: str) -> AsyncPostgresSaver:
    saver = AsyncPostgresSaver(pool)
    await _alone(dsn, saver.setup)
    return saver


async def _alone(dsn: str, set_up: Callable[[], Awaitable[None]]) -> None:
    """LangGraph's migrations do not expect company.

    The lock is the session's, and polled: their CREATE INDEX CONCURRENTLY waits for every transaction that is open.
    """
    with postgres_errors():
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            while not await _one(connection, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"):  # noqa: ASYNC110  # not an event of this process
                await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311  # jitter, not a secret
            try:
                await set_up()
            finally:
                await _one(connection, "SELECT pg_advisory_unlock(hashtextextended(%s, 0))")


async def _one(connection: AsyncConnection[Any], question: LiteralString) -> bool:
    cursor = await connection.execute(question, ["deerflow_replica:langgraph"])
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
