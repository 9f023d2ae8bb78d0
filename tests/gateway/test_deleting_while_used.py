"""A thread that is deleted while somebody uses it: a lock in PostgreSQL makes the order of the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import IN_MEMORY, by_header, in_process
from locked_tables import somebody_waits, written_by_nobody
from waiting import eventually

pytestmark = pytest.mark.anyio

THREAD = "0b7c1a9e-3f5d-4c55-9a0b-8d1f2e3a4b5c"
RUN: dict[str, Any] = {"assistant_id": "agent", "input": {"count": 1}}


@pytest.fixture
async def replica(postgres_dsn: str, postgres_schema: str) -> AsyncIterator[Replica]:
    database = {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema}
    async with open_replica(AppConfig.from_mapping({**IN_MEMORY, "database": database})) as replica:
        yield replica


@pytest.fixture
async def client(replica: Replica, graphs: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process(create_app(replica, graphs, authenticate=by_header), "ann") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"/threads/{THREAD}/runs", RUN),
        ("POST", f"/threads/{THREAD}/state", {"values": {}}),
        ("PATCH", f"/threads/{THREAD}", {"metadata": {"a": 1}}),
        ("POST", "/threads", {"thread_id": THREAD, "if_exists": "do_nothing"}),
    ],
)
async def test_a_row_that_comes_after_the_deletion_does_not_stay(
    replica: Replica,
    client: httpx.AsyncClient,
    postgres_dsn: str,
    postgres_schema: str,
    method: str,
    path: str,
    body: dict[str, Any],
) -> None:
    await replica.threads.claim(THREAD, "ann")
    async with written_by_nobody(postgres_dsn, postgres_schema, "deerflow_replica_threads") as locked:
        used = asyncio.create_task(client.request(method, path, json=body))
        await somebody_waits(locked)
        assert await replica.threads.delete(THREAD, user_id="ann")
    assert (await used).status_code == 404
    assert await replica.runs.get_thread_head(THREAD) is None
    assert (await client.post("/threads", json={"thread_id": THREAD})).status_code == 200


async def test_a_run_that_was_let_in_during_the_deletion_does_not_stay(
    replica: Replica, client: httpx.AsyncClient, postgres_dsn: str, postgres_schema: str
) -> None:
    await client.post("/threads", json={"thread_id": THREAD})

    async def has_row() -> bool:
        return await replica.runs.get_thread_head(THREAD) is not None

    async with written_by_nobody(postgres_dsn, postgres_schema, "user_thread_mappings") as locked:
        deleted = asyncio.create_task(client.delete(f"/threads/{THREAD}"))
        await somebody_waits(locked)
        assert not await has_row()
        used = asyncio.create_task(client.post(f"/threads/{THREAD}/runs", json=RUN))
        await eventually(has_row)
    assert (await deleted).status_code == 204
    assert (await used).status_code in (200, 404)
    assert not await has_row()
    assert await replica.runs.unfinished(user_id="ann") == ()
