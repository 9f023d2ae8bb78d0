"""The tables of `AsyncSqliteSaver`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import orjson

from ..._drivers.sqlite import sqlite_errors
from ..._drivers.statements import load_statements

if TYPE_CHECKING:
    from aiosqlite import Connection
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    from ..footprint import Found


class SqliteTables:
    def __init__(self, saver: AsyncSqliteSaver) -> None:
        self._saver = saver
        self._sql = load_statements("deerflow_replica.runs.savers", "sql/sqlite.sql")

    def errors(self) -> AbstractContextManager[None]:
        return sqlite_errors("of the checkpoints")

    async def heads_before(self, thread_id: str, run_id: str) -> list[tuple[str, str]]:
        ids = {"thread_id": thread_id, "run_id": run_id}
        async with self._transaction() as connection:
            rows = await connection.execute_fetchall(self._sql["heads_before_run"], ids)
        return [(checkpoint_ns, checkpoint_id) for checkpoint_ns, checkpoint_id in rows]

    async def is_built_upon(self, thread_id: str, run_id: str) -> bool:
        ids = {"thread_id": thread_id, "run_id": run_id}
        async with self._transaction() as connection:
            [(found,)] = await connection.execute_fetchall(self._sql["is_built_upon"], ids)
        return bool(found)

    async def delete_run(self, thread_id: str, run_id: str, touched: Iterable[Found]) -> None:
        async with self._transaction() as connection:
            for statement in ("delete_writes_of_run", "delete_checkpoints_of_run"):
                await connection.execute(self._sql[statement], {"thread_id": thread_id, "run_id": run_id})
            for found in touched:
                await connection.execute(self._sql["delete_later_writes"], _later_than(thread_id, found))

    async def copy_thread(self, source_id: str, target_id: str) -> None:
        async with self._transaction() as connection:
            columns = [name for (name,) in await connection.execute_fetchall(self._sql["columns_of_writes"])]
            copy_writes = "copy_writes" if "task_path" in columns else "copy_writes_without_path"
            for statement in ("copy_checkpoints", copy_writes):
                await connection.execute(self._sql[statement], {"source": source_id, "target": target_id})

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """The saver's own operations all take its lock, and commit before they leave it."""
        await self._saver.setup()
        connection = self._saver.conn
        async with self._saver.lock:
            with self.errors():
                try:
                    yield connection
                    await connection.commit()
                except BaseException:
                    await connection.rollback()
                    raise


def _later_than(thread_id: str, found: Found) -> dict[str, str]:
    return {
        "thread_id": thread_id,
        "checkpoint_ns": found.checkpoint_ns,
        "checkpoint_id": found.checkpoint_id,
        "keys": orjson.dumps(found.keys).decode(),
    }
