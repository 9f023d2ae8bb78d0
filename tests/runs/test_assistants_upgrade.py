"""A database that an earlier version set up gets its table of assistants where it is, however many replicas begin."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path

import psycopg
import pytest

from deerflow_replica.runs.registry.assistants import AssistantFilter, NewAssistant
from deerflow_replica.runs.registry.assistants_sql import ASSISTANTS
from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.postgres import PostgresRunRegistry
from deerflow_replica.runs.registry.sqlite import SqliteRunRegistry

pytestmark = pytest.mark.anyio


async def _begin_together(build: Callable[[], RunRegistry]) -> None:
    async with AsyncExitStack() as stack:
        replicas = await asyncio.gather(*(stack.enter_async_context(build()) for _ in range(8)))
        for number, replica in enumerate(replicas):
            assert await replica.assistants.create(NewAssistant(assistant_id=str(number), graph_id="g")) is not None
            assert await replica.get_thread("old") is not None
        assert await replicas[0].assistants.count(AssistantFilter()) == len(replicas)
    async with build() as registry:
        assert await registry.assistants.count(AssistantFilter()) == len(replicas)


async def test_postgres(postgres_dsn: str, postgres_schema: str) -> None:
    build = partial(PostgresRunRegistry, postgres_dsn, schema=postgres_schema)
    async with build() as registry:
        await registry.create_thread("old")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f'DROP TABLE "{postgres_schema}".{ASSISTANTS}'.encode())
    await _begin_together(build)


async def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    async with SqliteRunRegistry(path) as registry:
        await registry.create_thread("old")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"DROP TABLE {ASSISTANTS}")
    await _begin_together(partial(SqliteRunRegistry, path))
