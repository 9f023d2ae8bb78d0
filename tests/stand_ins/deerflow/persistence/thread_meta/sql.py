"""Threads in a table: here one of SQLite's own, without an ORM between."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deerflow.persistence.thread_meta.base import Record, ThreadMetaStore, UserId
from deerflow.runtime.user_context import AUTO, resolve_user_id

_COLUMNS = (
    "thread_id",
    "assistant_id",
    "user_id",
    "display_name",
    "status",
    "metadata_json",
    "created_at",
    "updated_at",
)
_PINNED = "metadata_json -> '$.pinned' = 'true'"


class ThreadMetaRepository(ThreadMetaStore):
    """A second row of one id is refused. Of other users' threads, and of missing ones, nothing is written."""

    def __init__(self, path: Path | str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = off")
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS threads_meta ({', '.join(_COLUMNS)}, PRIMARY KEY (thread_id))"
        )

    def close(self) -> None:
        self._connection.close()

    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str | None = None,
        user_id: UserId = AUTO,
        display_name: str | None = None,
        metadata: Record | None = None,
    ) -> Record:
        owner, now = resolve_user_id(user_id), _now()
        row = (thread_id, assistant_id, owner, display_name, "idle", json.dumps(metadata or {}), now, now)
        await self._run(f"INSERT INTO threads_meta VALUES ({', '.join('?' * len(row))})", *row)
        return _record(row)

    async def get(self, thread_id: str, *, user_id: UserId = AUTO) -> Record | None:
        owner = resolve_user_id(user_id)
        found = await self._run("SELECT * FROM threads_meta WHERE thread_id = ?", thread_id)
        records = [_record(row) for row in found]
        return next((record for record in records if owner is None or record["user_id"] == owner), None)

    async def search(
        self,
        *,
        metadata: Record | None = None,
        status: str | None = None,
        limit: int = 100,
        offset: int = 0,
        user_id: UserId = AUTO,
    ) -> list[Record]:
        assert not metadata, "what its filters mean differs from store to store"
        owner = resolve_user_id(user_id)
        found = await self._run(
            "SELECT * FROM threads_meta WHERE (? IS NULL OR user_id = ?) AND (? IS NULL OR status = ?)"
            f" ORDER BY coalesce({_PINNED}, 0) DESC, updated_at DESC, thread_id DESC LIMIT ? OFFSET ?",
            *(owner, owner),
            *(status, status),
            limit,
            offset,
        )
        return [_record(row) for row in found]

    async def update_display_name(self, thread_id: str, display_name: str, *, user_id: UserId = AUTO) -> None:
        await self._set(thread_id, user_id, display_name=display_name, updated_at=_now())

    async def update_status(self, thread_id: str, status: str, *, user_id: UserId = AUTO) -> None:
        await self._set(thread_id, user_id, status=status, updated_at=_now())

    async def update_metadata(
        self, thread_id: str, metadata: Record, *, touch: bool = True, user_id: UserId = AUTO
    ) -> None:
        record = await self.get(thread_id, user_id=user_id)
        if record is not None:
            merged = json.dumps({**record["metadata"], **metadata})
            times = {"updated_at": _now()} if touch else {}
            await self._set(thread_id, user_id, metadata_json=merged, **times)

    async def update_owner(self, thread_id: str, owner_user_id: str, *, user_id: UserId = AUTO) -> None:
        await self._set(thread_id, user_id, user_id=owner_user_id, updated_at=_now())

    async def check_access(self, thread_id: str, user_id: str, *, require_existing: bool = False) -> bool:
        record = await self.get(thread_id, user_id=None)
        return not require_existing if record is None else record["user_id"] in (None, user_id)

    async def delete(self, thread_id: str, *, user_id: UserId = AUTO) -> None:
        if await self.get(thread_id, user_id=user_id) is not None:
            await self._run("DELETE FROM threads_meta WHERE thread_id = ?", thread_id)

    async def _set(self, thread_id: str, owner: UserId, **values: Any) -> None:
        """It looks and then writes, as DeerFlow does."""
        if await self.get(thread_id, user_id=owner) is not None:
            columns = ", ".join(f"{name} = ?" for name in values)
            await self._run(f"UPDATE threads_meta SET {columns} WHERE thread_id = ?", *values.values(), thread_id)

    async def _run(self, statement: str, *parameters: Any) -> list[Any]:
        await asyncio.sleep(0)
        return self._connection.execute(statement, parameters).fetchall()


def _record(row: Any) -> Record:
    record = dict(zip(_COLUMNS, row, strict=True))
    return record | {"metadata": json.loads(record.pop("metadata_json"))}


def _now() -> str:
    return datetime.now(UTC).isoformat()
