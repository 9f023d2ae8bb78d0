"""The registry in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..._drivers.sqlite import SqliteDatabase
from ..._drivers.statements import load_statements, quoted
from . import assistants_sql, rules
from .assistants_sql import ASSISTANTS, SqlAssistants
from .rows import Row, Steps, T
from .sql import RUNS, THREADS, SqlRunRegistry

_SET_UP = (
    "create_threads", "create_runs", "create_runs_by_thread", "create_runs_by_lease", "create_runs_unfinished",
    *assistants_sql.SET_UP
)  # fmt: skip
_ADDED = {THREADS: ("resting", "keep_seconds", "expires_at"), RUNS: ("is_rolled_back", "due_at", "replaced")}


class SqliteRunRegistry(SqlRunRegistry):
    """Threads and runs in a file. Its clock is the machine's."""

    def __init__(self, path: str | Path | None = None, *, _database: SqliteDatabase | None = None) -> None:
        super().__init__()
        self._database = _database or SqliteDatabase(path or ":memory:")
        self._is_open = False
        names = {
            "threads": THREADS,
            "runs": RUNS,
            "runs_by_thread": f"{RUNS}_by_thread",
            "runs_by_lease": f"{RUNS}_by_lease",
            "runs_unfinished": f"{RUNS}_unfinished",
            "threads_by_expiry": f"{THREADS}_by_expiry",
            "assistants": ASSISTANTS,
            "assistants_by_user": f"{ASSISTANTS}_by_user",
        }
        identifiers = {name: quoted(table) for name, table in names.items()}
        files = ("sql/sqlite.sql", "sql/assistants_sqlite.sql")
        loaded = [load_statements(__package__ or "", file, **identifiers) for file in files]
        self._statements = loaded[0] | loaded[1]
        self.assistants = SqlAssistants(self._transaction)

    async def open(self) -> None:
        if self._is_open:
            return
        await self._database.open()
        self._is_open = True
        await self._database.write(_define_functions)
        await self._database.set_up([self._statements[name] for name in _SET_UP])
        await self._database.write(self._upgrade)

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._database.close()

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        """Tables of earlier versions lack these columns."""
        for table, columns in _ADDED.items():
            there = {row["name"] for row in self._execute(connection, "columns_of", {"table": table})}
            for column in columns:
                if column not in there:
                    connection.execute(self._statements[f"add_{column}"])
        connection.execute(self._statements["create_threads_by_expiry"])

    async def _transaction(self, steps: Callable[[], Steps[T]], *, retry: bool = True) -> T:
        return await self._database.write(lambda connection: self._run(connection, steps()))

    def _run(self, connection: sqlite3.Connection, steps: Steps[T]) -> T:
        try:
            statement, values = next(steps)
            while True:
                statement, values = steps.send(self._execute(connection, statement, values))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # StopIteration.value is Any

    def _execute(self, connection: sqlite3.Connection, statement: str, values: dict[str, Any]) -> list[Row]:
        parameters = {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}
        cursor = connection.execute(self._statements[statement], {**parameters, "now": time.time()})
        columns = [column[0] for column in cursor.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in cursor]


def _define_functions(connection: sqlite3.Connection) -> None:
    connection.create_function("json_contains", 2, _json_contains, deterministic=True)


def _json_contains(document: str, part: str) -> bool:
    return rules.contains(json.loads(document), json.loads(part))
