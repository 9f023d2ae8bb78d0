"""The registry on PostgreSQL, for replicas on any number of machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..._drivers.postgres import COLLIDED, PostgresDatabase
from ..._drivers.statements import load_statements, quoted
from ..._extras import extra
from ...errors import StoreUnavailableError
from . import assistants_sql
from .assistants_sql import ASSISTANTS, SqlAssistants
from .rows import Row, Steps, T
from .sql import RUNS, THREADS, SqlRunRegistry

with extra("postgres"):
    from psycopg.rows import dict_row

if TYPE_CHECKING:
    from ..._drivers.postgres import Connection, Pool

_SET_UP = (
    "create_threads", "create_runs", "create_runs_by_thread", "create_runs_by_lease", "upgrade_threads", "upgrade_runs",
    "create_runs_unfinished", "create_threads_by_expiry", *assistants_sql.SET_UP
)  # fmt: skip


class PostgresRunRegistry(SqlRunRegistry):
    """Threads and runs on a server, by its clock. A pool passed in is borrowed."""

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: Pool | None = None,
        schema: str | None = None,
        _database: PostgresDatabase | None = None,
    ) -> None:
        super().__init__()
        self._database = _database or PostgresDatabase(dsn, pool=pool)
        self._schema = schema
        self._is_open = False
        self._statements = load_statements(
            __package__ or "",
            "sql/postgres.sql",
            threads=quoted(schema, THREADS),
            runs=quoted(schema, RUNS),
            runs_by_thread=quoted(f"{RUNS}_by_thread"),
            runs_by_lease=quoted(f"{RUNS}_by_lease"),
            runs_unfinished=quoted(f"{RUNS}_unfinished"),
            threads_by_expiry=quoted(f"{THREADS}_by_expiry"),
        ) | load_statements(
            __package__ or "",
            "sql/assistants_postgres.sql",
            assistants=quoted(schema, ASSISTANTS),
            assistants_by_user=quoted(f"{ASSISTANTS}_by_user"),
        )
        self.assistants = SqlAssistants(self._transaction)

    async def open(self) -> None:
        if self._is_open:
            return
        await self._database.open()
        self._is_open = True
        schema = [f"CREATE SCHEMA IF NOT EXISTS {quoted(self._schema)}"] if self._schema else []
        await self._database.set_up("deerflow_replica", [*schema, *(self._statements[name] for name in _SET_UP)])

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._database.close()

    async def _transaction(self, steps: Callable[[], Steps[T]], *, retry: bool = True) -> T:
        async def work(connection: Connection) -> T:
            async with connection.transaction():
                return await self._run(connection, steps())

        while True:
            try:
                return await self._database.execute(work, retry=retry)
            except StoreUnavailableError as error:
                if getattr(error.__cause__, "sqlstate", None) not in COLLIDED:
                    raise

    async def _run(self, connection: Connection, steps: Steps[T]) -> T:
        try:
            statement, values = next(steps)
            while True:
                statement, values = steps.send(await self._execute(connection, statement, values))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # StopIteration.value is Any

    async def _execute(self, connection: Connection, statement: str, values: dict[str, Any]) -> list[Row]:
        cursor = connection.cursor(row_factory=dict_row)
        await cursor.execute(self._statements[statement].encode(), values)
        return [] if cursor.description is None else await cursor.fetchall()  # type: ignore[return-value]  # list is invariant
