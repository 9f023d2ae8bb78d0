"""The tables of `AsyncPostgresSaver`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..._drivers.postgres import postgres_errors
from ..._drivers.statements import load_statements

if TYPE_CHECKING:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    from ..footprint import Found


class PostgresTables:
    """Blobs that no checkpoint names any more stay until their thread is deleted: no version comes twice."""

    def __init__(self, saver: AsyncPostgresSaver) -> None:
        self._saver = saver
        self._sql = load_statements("deerflow_replica.runs.savers", "sql/postgres.sql")

    def errors(self) -> AbstractContextManager[None]:
        return postgres_errors()

    async def heads_before(self, thread_id: str, run_id: str) -> list[tuple[str, str]]:
        async with self._transaction() as cursor:
            await cursor.execute(self._sql["heads_before_run"], {"thread_id": thread_id, "run_id": run_id})
            return [(row["checkpoint_ns"], row["checkpoint_id"]) for row in await cursor.fetchall()]

    async def is_built_upon(self, thread_id: str, run_id: str) -> bool:
        async with self._transaction() as cursor:
            await cursor.execute(self._sql["is_built_upon"], {"thread_id": thread_id, "run_id": run_id})
            return bool((await cursor.fetchone())["found"])

    async def delete_run(self, thread_id: str, run_id: str, touched: Iterable[Found]) -> None:
        async with self._transaction() as cursor:
            for statement in ("delete_writes_of_run", "delete_checkpoints_of_run"):
                await cursor.execute(self._sql[statement], {"thread_id": thread_id, "run_id": run_id})
            for found in touched:
                await cursor.execute(self._sql["delete_later_writes"], _later_than(thread_id, found))

    async def copy_thread(self, source_id: str, target_id: str) -> None:
        """All of one moment, whoever writes to the thread or deletes it meanwhile."""
        async with self._transaction() as cursor:
            await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for statement in ("copy_checkpoints", "copy_blobs", "copy_writes"):
                await cursor.execute(self._sql[statement], {"source": source_id, "target": target_id})

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        with self.errors():
            async with self._saver._cursor() as cursor, cursor.connection.transaction():
                yield cursor


def _later_than(thread_id: str, found: Found) -> dict[str, Any]:
    return {
        "thread_id": thread_id,
        "checkpoint_ns": found.checkpoint_ns,
        "checkpoint_id": found.checkpoint_id,
        "task_ids": [task_id for task_id, _ in found.keys],
        "channels": [channel for _, channel in found.keys],
    }
