"""How DeerFlow 2 lists a user's threads, for a comparison: its table, its order, its offset; no ORM between."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiosqlite

_TABLE = """
CREATE TABLE threads_meta (
    thread_id VARCHAR(64) PRIMARY KEY, assistant_id VARCHAR(128), user_id VARCHAR(64), display_name VARCHAR(256),
    status VARCHAR(20), metadata_json JSON, created_at DATETIME, updated_at DATETIME
);
CREATE INDEX ix_threads_meta_assistant_id ON threads_meta (assistant_id);
CREATE INDEX ix_threads_meta_user_id ON threads_meta (user_id);
"""
_LIST = "SELECT * FROM threads_meta WHERE user_id = ? ORDER BY updated_at DESC, thread_id DESC LIMIT 50 OFFSET ?"
_COLUMNS = (
    "thread_id",
    "assistant_id",
    "user_id",
    "display_name",
    "status",
    "metadata",
    "created_at",
    "updated_at",
)


async def deerflows_lists(stack: AsyncExitStack, path: Path, size: int) -> dict[str, Callable[[], Awaitable[object]]]:
    """Its first page of 50, and the one after 95 % of the threads."""
    connection = await stack.enter_async_context(aiosqlite.connect(path))
    await connection.executescript(_TABLE)
    start = datetime.now(UTC)
    moments = [(start + timedelta(microseconds=number)).isoformat(" ") for number in range(size)]
    rows = [(f"t{n:06}", None, "ann", None, "idle", '{"title": "a thread"}', at, at) for n, at in enumerate(moments)]
    await connection.executemany("INSERT INTO threads_meta VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    await connection.commit()

    async def page(offset: int) -> list[dict[str, Any]]:
        found = await connection.execute_fetchall(_LIST, ("ann", offset))
        return [_record(row) for row in found]

    return {"its first page": lambda: page(0), "its deep page": lambda: page(size * 95 // 100)}


def _record(row: Any) -> dict[str, Any]:
    record = dict(zip(_COLUMNS, row, strict=True))
    return record | {"metadata": json.loads(record["metadata"])}
