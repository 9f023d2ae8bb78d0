"""The store in an SQLite file: for one host, however many processes."""

from __future__ import annotations

import asyncio
import os
from typing import Self

from langgraph.store.base import TTLConfig

from .._drivers.sqlite import SqliteDatabase
from .backend import Backend
from .backend_sqlite import SqliteBackend, StoreFile
from .base import SharedStore
from .embedding import VectorIndexConfig


class SqliteStore(SharedStore):
    """LangGraph's `BaseStore` in tables of an SQLite file (WAL), shared by the processes of one host.

    Folders above `path` are created; `":memory:"` is private to the object. `index` ranks by looking at every vector.
    The clock is the host's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout_seconds: float = 10.0,
        index: VectorIndexConfig | None = None,
        ttl: TTLConfig | None = None,
        _database: SqliteDatabase | None = None,
    ) -> None:
        self._path = os.fspath(path)
        self._busy_timeout_seconds = busy_timeout_seconds
        self._file = StoreFile(_database or self._new_database())
        super().__init__("sqlite-store", index=index, ttl=ttl)

    @classmethod
    def from_conn_string(
        cls,
        conn: str,
        *,
        busy_timeout_seconds: float = 10.0,
        index: VectorIndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> Self:
        """The same as the constructor; `conn` is a path, with or without `sqlite:///`."""
        return cls(conn.removeprefix("sqlite:///"), busy_timeout_seconds=busy_timeout_seconds, index=index, ttl=ttl)

    async def aclose(self) -> None:
        await super().aclose()
        if self._root is self:
            await self._file.close()

    def close(self) -> None:
        super().close()
        if self._root is self:
            asyncio.run(self._file.close())

    def _new_backend(self) -> Backend:
        if self._file.pid != os.getpid():  # the thread that has the connection stayed with the parent
            self._parents, self._file = self._file, StoreFile(self._new_database())  # closed by a child, it would harm
        return SqliteBackend(self._file, self._embedder)

    def _new_database(self) -> SqliteDatabase:
        return SqliteDatabase(self._path, busy_timeout_seconds=self._busy_timeout_seconds)
