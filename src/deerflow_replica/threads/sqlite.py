"""The thread map in an SQLite file, for the replicas of one host."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .._drivers.sqlite import SqliteDatabase
from .base import ThreadMap
from .clock import microseconds
from .filters import metadata_matches
from .paging import Filters, Query
from .rules import Inserted, NewThread, Row, Rule
from .sql import page_parameters, row_parameters, statements_of

T = TypeVar("T")


class SqliteThreadMap(ThreadMap):
    """A `ThreadMap` in one table of an SQLite file (WAL), atomic between the processes that share the file.

    The clock is the host's. Folders above `path` are created; `":memory:"` is private to the map.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        table: str = "user_thread_mappings",
        tenant: str = "default",
        ttl_seconds: float | None = None,
        tombstone_seconds: float = 2_592_000.0,
        operation_timeout_seconds: float = 10.0,
        _database: SqliteDatabase | None = None,
        _clock: Callable[[], int] = microseconds,
    ) -> None:
        super().__init__(
            tenant=tenant,
            ttl_seconds=ttl_seconds,
            tombstone_seconds=tombstone_seconds,
            operation_timeout_seconds=operation_timeout_seconds,
        )
        self._statements = statements_of("sqlite.sql", table)
        self._database = _database or SqliteDatabase(path, busy_timeout_seconds=self._timeout_seconds)
        self._clock = _clock
        self.runner = self._database.runner

    async def _open(self) -> None:
        await self._database.open()
        try:
            await self._database.set_up(self._statements.set_up)
            await self._database.read(_add_functions)
        except BaseException:
            await self._database.close()
            raise

    async def _close(self) -> None:
        await self._database.close()

    async def _read(self, keys: Sequence[str]) -> tuple[int, dict[str, Row]]:
        rows = await self._database.read(lambda connection: self._rows(connection, keys))
        return self._clock(), rows

    async def _owners(self, keys: Sequence[str]) -> dict[str, str]:
        parameters = {"tenant": self._tenant, "keys": json.dumps(keys), "now": self._clock()}
        return dict(
            await self._database.read(lambda connection: connection.execute(self._sql("owners"), parameters).fetchall())
        )

    async def _insert(self, keys: Sequence[str], new: NewThread) -> Inserted:
        def work(connection: sqlite3.Connection) -> Inserted:
            now = self._clock()
            return Inserted(now, self._inserted(connection, keys, new.row("", now)))

        return await self._database.write(work)

    async def _change(self, key: str, rule: Rule[T]) -> T:
        def work(connection: sqlite3.Connection) -> T:
            outcome = rule(self._clock(), row := self._rows(connection, [key]).get(key))
            if outcome.row is not None and row is None:
                self._inserted(connection, [key], outcome.row)
            elif outcome.row is not None:
                connection.execute(self._sql("replace"), row_parameters(self._tenant, outcome.row))
            return outcome.answer

        return await self._database.write(work)

    async def _remove(self, key: str, change: str) -> None:
        parameters = {"tenant": self._tenant, "thread_id": key, "change": change}
        await self._database.write(lambda connection: connection.execute(self._sql("remove"), parameters))

    async def _page(self, query: Query) -> list[Row]:
        ids = None if query.filters.ids is None else json.dumps(sorted(query.filters.ids))
        parameters = page_parameters(self._tenant, query) | {"ids": ids, "now": self._clock()}
        statement = self._statements.pages[query.sort_by, query.sort_order]

        def work(connection: sqlite3.Connection) -> list[Row]:
            return [Row(*values) for values in connection.execute(statement, parameters)]

        return await self._database.read(work)

    async def _count(self, user_id: str, filters: Filters) -> int:
        parameters = {
            "tenant": self._tenant,
            "user_id": user_id,
            "status": filters.status,
            "metadata": filters.metadata,
            "now": self._clock(),
        }

        def work(connection: sqlite3.Connection) -> int:
            return int(connection.execute(self._sql("count"), parameters).fetchone()[0])

        return await self._database.read(work)

    async def _sweep(self, limit: int, change: str) -> int:
        parameters = {
            "tenant": self._tenant,
            "now": self._clock(),
            "limit": limit,
            "change": change,
            "tombstone": self._tombstone,
        }

        def work(connection: sqlite3.Connection) -> int:
            buried = connection.execute(self._sql("bury_expired"), parameters).rowcount
            connection.execute(self._sql("drop_tombstones"), parameters)
            return buried

        return await self._database.write(work)

    def _sql(self, name: str) -> str:
        return self._statements.by_name[name]

    def _rows(self, connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Row]:
        found = connection.execute(self._sql("read"), {"tenant": self._tenant, "keys": json.dumps(keys)})
        return {values[0]: Row(*values) for values in found}

    def _inserted(self, connection: sqlite3.Connection, keys: Sequence[str], row: Row) -> set[str]:
        parameters = row_parameters(self._tenant, row) | {"keys": json.dumps(keys)}
        return {key for (key,) in connection.execute(self._sql("insert"), parameters)}


def _add_functions(connection: sqlite3.Connection) -> None:
    connection.create_function("metadata_matches", 2, metadata_matches, deterministic=True)
