"""A copy has the checkpoints of one moment: a lock lets somebody delete them in the middle of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from psycopg import AsyncConnection

from deerflow_replica.runs.checkpoints import copy_thread
from locked_tables import somebody_waits, written_by_nobody
from runs.graphs import one, steps
from runs.managing import history
from runs.savers import postgres_saver

pytestmark = pytest.mark.anyio


async def test_what_is_deleted_in_the_middle_is_copied_all_the_same(postgres_dsn: str, postgres_schema: str) -> None:
    config: Any = {"configurable": {"thread_id": "t"}}
    async with postgres_saver(postgres_dsn, postgres_schema) as saver:
        await steps(one, checkpointer=saver).ainvoke({"log": ["hi"]}, config)
        before = [checkpoint for _, checkpoint, *_ in await history(saver)]
        async with written_by_nobody(postgres_dsn, postgres_schema, "checkpoint_blobs") as locked:
            copying = asyncio.create_task(copy_thread(saver, "t", "copy"))
            await somebody_waits(locked)
            await _delete_thread(locked, postgres_schema)
        await copying
        assert [checkpoint for _, checkpoint, *_ in await history(saver, "copy")] == before
        assert await history(saver) == []


async def _delete_thread(connection: AsyncConnection, schema: str) -> None:
    await connection.execute(f'SET LOCAL search_path TO "{schema}"'.encode())
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        await connection.execute(f"DELETE FROM {table} WHERE thread_id = 't'".encode())  # our names
