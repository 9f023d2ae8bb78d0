"""Tables of earlier versions, with rows in them, get what this version needs when it opens them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica._drivers.statements import load_statements, quoted
from deerflow_replica.runs.registry import rules
from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.records import NewRun
from deerflow_replica.runs.registry.sql import RUNS, THREADS
from deerflow_replica.runs.registry.sqlite import SqliteRunRegistry

pytestmark = pytest.mark.anyio

FIRST_VERSION = ("create_threads", "create_runs")
THREAD = "('t', NULL, 'interrupted', {no}, '{{}}', '{{}}', '{{\"x\": 1}}', '{{}}', NULL, {now}, {now}, {now})"
RUN = (
    "(run_id, thread_id, assistant_id, status, metadata, kwargs, multitask_strategy, owner, fence, lease_until, closed,"
    " created_at, updated_at)"
    " VALUES ('r0', 't', 'a', 'interrupted', '{{}}', '{{}}', 'enqueue', 'one', 1, {now}, {yes}, {now}, {now})"
)


def rows_of_old(**words: str) -> list[str]:
    return [f"INSERT INTO {{threads}} VALUES {THREAD}".format(**words), f"INSERT INTO {{runs}} {RUN}".format(**words)]


def old_sqlite(path: Path) -> Callable[[], RunRegistry]:
    names = {"threads": quoted(THREADS), "runs": quoted(RUNS)}
    statements = load_statements("deerflow_replica.runs.registry", "sql/sqlite.sql", **names)
    with sqlite3.connect(path) as connection:
        for name in FIRST_VERSION:
            connection.execute(statements[name])
        for row in rows_of_old(**names, now="0", no="0", yes="1"):
            connection.execute(row)
    connection.close()
    return lambda: SqliteRunRegistry(path)


def old_postgres(dsn: str, schema: str) -> Callable[[], RunRegistry]:
    import psycopg

    from deerflow_replica.runs.registry.postgres import PostgresRunRegistry

    names = {"threads": quoted(schema, THREADS), "runs": quoted(schema, RUNS)}
    statements = load_statements("deerflow_replica.runs.registry", "sql/postgres.sql", **names)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'.encode())
        for statement in [statements[name] for name in FIRST_VERSION] + rows_of_old(
            **names, now="now()", no="false", yes="true"
        ):
            connection.execute(statement.encode())
    return lambda: PostgresRunRegistry(dsn, schema=schema)


@pytest.fixture(params=["sqlite", "postgres"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], RunRegistry]:
    if request.param == "sqlite":
        return old_sqlite(tmp_path / "old.db")
    return old_postgres(request.getfixturevalue("postgres_dsn"), request.getfixturevalue("postgres_schema"))


async def test_old_rows_are_kept_and_can_do_what_new_ones_can(build: Any) -> None:
    registries = [build() for _ in range(3)]
    await asyncio.gather(*(registry.open() for registry in registries))
    try:
        registry: RunRegistry = registries[0]
        before = await registry.get_thread("t")
        assert before is not None
        assert (before.status, before.values) == ("interrupted", {"x": 1})
        assert [record.run_id for record in await registries[1].list("t")] == ["r0"]
        run = NewRun(run_id="r1", thread_id="t", owner="one", multitask_strategy="rollback")
        admitted = await registry.admit(run, lease_seconds=60)
        assert await registry.roll_back(admitted.lease)
        after = await registry.get_thread("t")
        assert after is not None
        assert replace(after, updated_at=before.updated_at) == before
        await registry.close_run("r1")
        assert await registry.settle_thread("t", rules.succeeded({"x": 2}, {}))
        assert await registry.delete_thread("t")
    finally:
        await asyncio.gather(*(registry.close() for registry in registries))
