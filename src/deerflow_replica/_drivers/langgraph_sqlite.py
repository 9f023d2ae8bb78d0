"""LangGraph's own saver and store on a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, cast

from .._extras import extra
from ..errors import StoreUnavailableError
from .langgraph_batching import stop_batching
from .sqlite import sqlite_errors

with extra("sqlite"):
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langgraph.store.sqlite.aio import AsyncSqliteStore


@asynccontextmanager
async def open_saver(path: str, *, timeout_seconds: float) -> AsyncIterator[AsyncSqliteSaver]:
    async with aiosqlite.connect(path, timeout=timeout_seconds) as connection:
        saver = AsyncSqliteSaver(connection)
        with sqlite_errors(path):
            await saver.setup()
        try:
            yield saver
        finally:
            saver.conn = _closed(path)


@asynccontextmanager
async def open_store(
    path: str, options: Mapping[str, Any], *, timeout_seconds: float
) -> AsyncIterator[AsyncSqliteStore]:
    async with aiosqlite.connect(path, timeout=timeout_seconds, isolation_level=None) as connection:
        store = AsyncSqliteStore(connection, **options)
        try:
            with sqlite_errors(path):
                await _set_up(store)
            yield store
        finally:
            await stop_batching(store)
            store.conn = _closed(path)


async def _set_up(store: AsyncSqliteStore) -> None:
    """Of several first openers one wins each migration: the others go on where it left off."""
    while True:
        try:
            await store.setup()
        except (sqlite3.IntegrityError, sqlite3.OperationalError) as error:
            if "UNIQUE" not in str(error) and "duplicate column" not in str(error):
                raise
        else:
            return


class _Closed:
    """In the place of a connection that was closed, whose own word for it is a `ValueError`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> NoReturn:
        raise StoreUnavailableError(f"SQLite file {self._path} is closed")


def _closed(path: str) -> aiosqlite.Connection:
    return cast("aiosqlite.Connection", _Closed(path))
