"""Tables that somebody has locked: the order of what others do to them is the test's to make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg import AsyncConnection, sql

from waiting import eventually


@asynccontextmanager
async def written_by_nobody(dsn: str, schema: str, table: str) -> AsyncIterator[AsyncConnection]:
    """Within, the table can be read, and whoever writes to it waits."""
    async with await AsyncConnection.connect(dsn) as connection:
        await connection.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(sql.Identifier(schema, table)))
        yield connection


async def somebody_waits(connection: AsyncConnection) -> None:
    async def waits() -> bool:
        found = await connection.execute(
            "SELECT 1 FROM pg_locks WHERE NOT granted"
            " AND relation IN (SELECT relation FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'ExclusiveLock')"
        )
        return await found.fetchone() is not None

    await eventually(waits)
