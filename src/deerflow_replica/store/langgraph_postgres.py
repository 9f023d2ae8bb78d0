"""LangGraph's own store in PostgreSQL, read only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from .._drivers.postgres import is_dsn, postgres_errors
from .._drivers.statements import load_statements
from .._extras import extra
from ..config.masking import masked
from ..errors import ConfigError, StoreUnavailableError

with extra("postgres"):
    import psycopg
    from psycopg import AsyncConnection
    from psycopg.rows import class_row, scalar_row

if TYPE_CHECKING:
    from psycopg import AsyncCursor

_PACKAGE = __name__.rpartition(".")[0]
_MICROSECOND = timedelta(microseconds=1)


class SourceUnavailableError(StoreUnavailableError):
    """It is the source of an import that cannot be reached, not its target."""


class LangGraphItem(NamedTuple):
    """A row of LangGraph's table. The stamps are aware; `document` is JSON."""

    prefix: str
    key: str
    document: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    ttl_minutes: float | None

    @property
    def ttl(self) -> int | None:
        """In microseconds. The table holds whole minutes: what was less than one is told from the stamps."""
        if self.expires_at is None:
            return None
        if self.ttl_minutes:
            return round(self.ttl_minutes * 60_000_000)
        return max(1, (self.expires_at - self.updated_at) // _MICROSECOND)


async def langgraph_items(dsn: str, batch_size: int) -> AsyncIterator[list[LangGraphItem]]:
    """All items in the order of their keys, in lists of at most `batch_size`, fewer where they are large, each of one
    short transaction.

    Raises `ConfigError` where there is no such table, or no right to read it, and `SourceUnavailableError` when the
    server is away; both say where that is.
    """
    if not is_dsn(dsn):
        raise ConfigError("the source is neither a postgresql:// URL nor a connection string of PostgreSQL's")
    with _source_errors(dsn):
        async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.set_read_only(True)
            page = await _page(connection)
            after: dict[str, Any] = {"is_first": True, "prefix": "", "key": "", "limit": batch_size}
            while items := await _items(connection, page, after):
                yield items
                after |= {"is_first": False, "prefix": items[-1].prefix, "key": items[-1].key}


@contextmanager
def _source_errors(dsn: str) -> Iterator[None]:
    try:
        with postgres_errors():
            yield
    except StoreUnavailableError as error:
        raise SourceUnavailableError(f"the source {masked(dsn)} cannot be read: {error}") from error.__cause__
    except (ConfigError, psycopg.Error) as error:
        said = str(error).partition("\n")[0]
        raise ConfigError(f"the source {masked(dsn)} cannot be read: {said}") from error


async def _items(connection: AsyncConnection[Any], page: bytes, after: dict[str, Any]) -> list[LangGraphItem]:
    cursor: AsyncCursor[LangGraphItem] = connection.cursor(row_factory=class_row(LangGraphItem))
    await cursor.execute(page, after)
    return await cursor.fetchall()


async def _page(connection: AsyncConnection[Any]) -> bytes:
    """For the columns that the source has: the first versions knew no expiry."""
    statements = load_statements(_PACKAGE, "sql/postgres/langgraph.sql")
    cursor = connection.cursor(row_factory=scalar_row)
    await cursor.execute(statements["columns"].encode())
    columns = set(await cursor.fetchall())
    if not {"prefix", "key", "value"} <= columns:
        raise ConfigError("it has no table of LangGraph's store")
    expiry = "expires_at, ttl_minutes" if "ttl_minutes" in columns else "NULL AS expires_at, NULL AS ttl_minutes"
    return statements["page"].replace("{expiry}", expiry).encode()
