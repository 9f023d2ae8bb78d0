"""LangGraph's own saver on an SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn, cast

from .._extras import extra
from ..errors import StoreUnavailableError
from .sqlite import sqlite_errors

with extra("sqlite"):
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver


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


class _Closed:
    """In the place of a connection that was closed, whose own word for it is a `ValueError`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> NoReturn:
        raise StoreUnavailableError(f"SQLite file {self._path} is closed")


def _closed(path: str) -> aiosqlite.Connection:
    return cast("aiosqlite.Connection", _Closed(path))
