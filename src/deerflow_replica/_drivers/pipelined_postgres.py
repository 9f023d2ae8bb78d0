"""Several statements in one round trip and one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .._extras import extra
from .direct_postgres import Plan, Rows

with extra("postgres"):
    from psycopg import AsyncPipeline

if TYPE_CHECKING:
    from psycopg import AsyncCursor
    from psycopg.abc import PQGen

    from .postgres import Connection


class Statement(NamedTuple):
    """`plan`: the same text, where it is always the same."""

    text: bytes
    parameters: Mapping[str, Any]
    plan: Plan | None = None


async def fetched(connection: Connection, statements: Sequence[Statement]) -> list[Rows]:
    """The rows of each, on an idle connection with autocommit. Where one fails, none of them has happened."""
    if not statements:
        return []
    if len(statements) == 1:
        cursor = await connection.execute(statements[0].text, statements[0].parameters)
        return [await _rows(cursor)]
    cursors = []
    if connection._pipeline is None:
        connection._pipeline = _EagerPipeline(connection)
    async with connection.pipeline():  # its end sends the one Sync: to fetch or sync before is a round trip more
        for statement in statements:
            cursor = connection.cursor()
            await cursor.execute(statement.text, statement.parameters)
            cursors.append(cursor)
    return [await _rows(cursor) for cursor in cursors]


class _EagerPipeline(AsyncPipeline):
    """Hands every command to libpq at once, which keeps what the socket does not take yet.

    psycopg's own waits twice for the event loop at each command, and hangs when a large one is followed by a sync.
    """

    def _communicate_gen(self) -> PQGen[None]:
        while self.command_queue:
            self.command_queue.popleft()()
        yield from ()


async def _rows(cursor: AsyncCursor[Any]) -> Rows:
    """Asked for without the columns' descriptions, which cost as much as the rest of a short call."""
    has_rows = cursor.pgresult is not None and cursor.pgresult.nfields > 0
    return await cursor.fetchall() if has_rows else []
