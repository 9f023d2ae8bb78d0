"""The statements use their indexes: a page costs the same at any depth."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.threads import PostgresThreadMap, SqliteThreadMap, ThreadMap
from deerflow_replica.threads.values import SortBy, SortOrder

pytestmark = pytest.mark.anyio

_ORDERS: list[tuple[SortBy, SortOrder]] = [
    ("updated_at", "desc"),
    ("updated_at", "asc"),
    ("created_at", "desc"),
    ("created_at", "asc"),
]
_PAGE = {"tenant": "default", "user_id": "ann", "status": None, "metadata": "{}", "ids": None, "limit": 51, "offset": 0}


async def filled(threads: ThreadMap) -> None:
    for start in range(0, 20_000, 1000):
        await threads.claim_many([f"t{number}" for number in range(start, start + 1000)], "ann" if start else "bob")


@pytest.mark.parametrize(("sort_by", "sort_order"), _ORDERS)
async def test_a_page_in_sqlite(tmp_path: Path, sort_by: SortBy, sort_order: SortOrder) -> None:
    async with SqliteThreadMap(tmp_path / "threads.db") as threads:
        statement = threads._statements.pages[sort_by, sort_order]
        parameters: dict[str, Any] = {**_PAGE, "after_value": 10**15, "after_key": "t", "now": 10**15}

        def explained(connection: sqlite3.Connection) -> list[str]:
            return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]

        plan = await threads._database.read(explained)
    sign = "<" if sort_order == "desc" else ">"
    column = sort_by.removesuffix("_at")
    index = f"user_thread_mappings_by_{column}"
    assert f"USING INDEX {index} (tenant=? AND user_id=? AND ({sort_by},thread_id){sign}(?,?))" in plan[0]
    assert not any("TEMP B-TREE" in step for step in plan)


@pytest.mark.parametrize("name", ["read", "bury_expired", "drop_tombstones", "count"])
async def test_sqlite_scans_no_table(tmp_path: Path, name: str) -> None:
    async with SqliteThreadMap(tmp_path / "threads.db") as threads:
        parameters: dict[str, Any] = {**_PAGE, "keys": '["t"]', "now": 1, "change": "", "tombstone": 1}

        def explained(connection: sqlite3.Connection) -> list[str]:
            return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {threads._sql(name)}", parameters)]

        plan = await threads._database.read(explained)
    assert not any(step.startswith("SCAN user_thread_mappings") for step in plan), plan


async def test_postgres_plans(postgres_dsn: str, postgres_schema: str) -> None:
    async with PostgresThreadMap(postgres_dsn, schema=postgres_schema) as threads:
        await filled(threads)
        middle = (await threads.list("ann", limit=1, offset=9_000)).items[0]

        async def plan_of(statement: str, **parameters: Any) -> str:
            async def explained(connection: Any) -> str:
                cursor = await connection.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode(), parameters)
                return json.dumps((await cursor.fetchone())[0])

            return await threads._database.execute(explained)

        async def analysed(connection: Any) -> None:
            await connection.execute(f'ANALYZE "{postgres_schema}".user_thread_mappings'.encode())

        await threads._database.execute(analysed)
        place = {"after_value": round(middle.updated_at.timestamp() * 1e6), "after_key": middle.thread_id}
        for sort_by, sort_order in _ORDERS:
            plan = await plan_of(threads._statements.pages[sort_by, sort_order], **_PAGE, **place)
            column = sort_by.removesuffix("_at")
            assert f"user_thread_mappings_by_{column}" in plan
            assert f"ROW({sort_by}, thread_id)" in plan.split('"Index Cond"')[1].split('"Filter"')[0]
            assert "Seq Scan" not in plan
            assert '"Sort"' not in plan
        for name in ("read", "read_locked", "bury_expired", "drop_tombstones"):
            asked = {"tenant": "default", "keys": ["t1"], "key": "t1", "limit": 10, "change": "", "tombstone": 1}
            assert "Seq Scan" not in await plan_of(threads._statements.by_name[name], **asked), name


async def test_postgres_compares_names_by_code_point_whatever_the_database_does(
    postgres_dsn: str, postgres_schema: str
) -> None:
    asked = b"SELECT column_name, collation_name FROM information_schema.columns WHERE table_schema = %s"

    async def collations(connection: Any) -> dict[str, str | None]:
        return dict(await (await connection.execute(asked, [postgres_schema])).fetchall())

    async with PostgresThreadMap(postgres_dsn, schema=postgres_schema) as threads:
        found = await threads._database.execute(collations)
    assert [found[name] for name in ("tenant", "thread_id", "user_id")] == ["C", "C", "C"]
