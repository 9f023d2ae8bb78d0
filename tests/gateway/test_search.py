"""Threads are found by what they are now, whoever changed them, and one's own only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.testing._contract import for_one_of
from gateway.calling import client_of, started
from gateway.serving import IN_MEMORY, by_header, in_process
from waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Replica]:
    """A replica on each kind of database, its thread map too."""
    config = dict(IN_MEMORY)
    if request.param == "sqlite":
        config["database"] = {"backend": "sqlite", "sqlite_dir": str(tmp_path)}
    if request.param == "postgres":
        schema = request.getfixturevalue("postgres_schema")
        dsn = request.getfixturevalue("postgres_dsn")
        config["database"] = {"backend": "postgres", "postgres_url": dsn, "postgres_schema": schema}
    async with open_replica(AppConfig.from_mapping(config)) as replica:
        yield replica


@pytest.fixture(params=["u", None])
async def client(
    request: pytest.FixtureRequest, stored: Replica, graphs: dict[str, Any]
) -> AsyncIterator[LangGraphClient]:
    """Somebody beside whom there are other users, or nobody."""
    known, anyone = create_app(stored, graphs, authenticate=by_header), create_app(stored, graphs)
    async with client_of(known, "other") as other:
        for number in range(3):
            await other.threads.create(metadata={"n": number})
    async with client_of(known if request.param else anyone, request.param) as opened:
        yield opened


async def _found(client: LangGraphClient, **query: Any) -> list[str]:
    return [thread["thread_id"] for thread in await client.threads.search(**query)]


async def _made(client: LangGraphClient, number: int, **metadata: Any) -> list[str]:
    return [str((await client.threads.create(metadata={"n": n, **metadata}))["thread_id"]) for n in range(number)]


async def test_filters_orders_and_counts(client: LangGraphClient) -> None:
    made = await _made(client, 5, team={"name": "a", "size": 2}, tags=["x", "y"])
    assert await _found(client) == made[::-1]
    assert await _found(client, sort_by="created_at", sort_order="asc", limit=2, offset=1) == made[1:3]
    assert await _found(client, sort_by="thread_id", sort_order="asc") == sorted(made)
    assert await _found(client, sort_by="status", limit=2) == sorted(made, reverse=True)[:2]
    assert await _found(client, ids=[made[3], made[1]]) == [made[3], made[1]]
    assert await _found(client, metadata={"n": 2}) == [made[2]]
    assert await _found(client, metadata={"n": True}) == []
    assert await _found(client, metadata={"team": {"name": "a"}, "n": 4}) == [made[4]]
    assert await _found(client, metadata={"tags": ["y"]}, limit=1) == [made[4]]
    counts: list[dict[str, Any]] = [{}, {"n": 1}, {"n": 9}, {"team": {"size": 2}}, {"team": {"size": 3}}]
    assert [await client.threads.count(metadata=wanted) for wanted in counts] == [5, 1, 0, 5, 0]


async def test_status_and_metadata_are_those_of_now(client: LangGraphClient) -> None:
    first, second, third = await _made(client, 3)
    await client.threads.update(first, metadata={"n": 7, "more": None})
    await client.runs.wait(second, "asking", input={})
    await client.runs.wait(third, "agent", input={"count": 0, "fail": "x"}, raise_error=False)
    busy, run_id = await started(client)
    by_status: list[Any] = ["idle", "interrupted", "error", "busy"]
    assert [await _found(client, status=status) for status in by_status] == [[first], [second], [third], [busy]]
    assert [await client.threads.count(status=status) for status in by_status] == [1, 1, 1, 1]
    assert await _found(client, sort_by="status", sort_order="asc") == [busy, third, first, second]
    assert await _found(client, metadata={"graph_id": "asking"}) == [second]
    assert await _found(client, metadata={"n": 7}) == await _found(client, metadata={"more": None}) == [first]
    assert await _found(client, metadata={"n": 0}) == []
    await client.runs.cancel(busy, run_id, wait=True)
    assert await _found(client, status="busy") == []
    assert (await _found(client, sort_by="updated_at"))[0] == busy
    await client.threads.delete(busy)
    assert await client.threads.count() == 3


async def test_values_are_searched(client: LangGraphClient) -> None:
    first, second = await _made(client, 2)
    for thread_id, count in ((first, 1), (second, 2)):
        await client.runs.wait(thread_id, "agent", input={"count": count})
    assert await _found(client, values={"total": 2}) == [second]
    assert await _found(client, values={"total": 1, "count": 1}, metadata={"graph_id": "agent"}) == [first]
    assert await client.threads.count(values={"total": 3}) == 0
    found: Any = await client.threads.search(values={"total": 2}, select=["thread_id", "values"])
    assert found == [{"thread_id": second, "values": {"count": 2, "total": 2}}]


async def test_pages_say_how_many_there_are_and_where_the_next_begins(client: LangGraphClient) -> None:
    made = await _made(client, 5, tag={"a": 1})
    queries: list[dict[str, Any]] = [{}, {"sort_by": "thread_id"}, {"metadata": {"tag": {}}}, {"ids": made}]
    for query in queries:
        seen = set[str]()
        for offset, following in ((0, "2"), (2, "4"), (4, None), (9, None)):
            answer = await client.http.client.post("/threads/search", json={"limit": 2, "offset": offset, **query})
            assert answer.headers["x-pagination-total"] == "5"
            assert answer.headers.get("x-pagination-next") == following
            seen |= {thread["thread_id"] for thread in answer.json()}
        assert seen == set(made)


async def test_what_the_map_cannot_ask_is_the_clients_mistake(replica: Replica, graphs: dict[str, Any]) -> None:
    async with in_process(create_app(replica, graphs, authenticate=by_header), "u") as http:
        for path in ("/threads", "/threads/search", "/threads/count"):
            answer = await http.post(path, json={"metadata": {"a": "x" * 70_000}})
            assert answer.status_code == 422
            assert "65536" in answer.json()["detail"]
        made = (await http.post("/threads", json={"metadata": {"a": "x" * 60_000}})).json()
        answer = await http.patch(f"/threads/{made['thread_id']}", json={"metadata": {"b": "x" * 10_000}})
        assert answer.status_code == 422
        assert (await http.get(f"/threads/{made['thread_id']}")).json() == made


@pytest.mark.faults  # it waits for an expiry
async def test_a_thread_does_not_expire_under_its_run(graphs: dict[str, Any]) -> None:
    async def is_there_until_then(seconds: float) -> bool:
        return await _outlives_its_run(graphs, seconds)

    assert await for_one_of((1.0, 6.0), is_there_until_then)


async def _outlives_its_run(graphs: dict[str, Any], seconds: float) -> bool:
    config = AppConfig.from_mapping({**IN_MEMORY, "user_thread_mapping": {"ttl_seconds": seconds}})
    async with (
        open_replica(config) as replica,
        client_of(create_app(replica, graphs, authenticate=by_header), "u") as client,
    ):
        thread_id = str((await client.threads.create())["thread_id"])
        try:
            await client.runs.wait(thread_id, "agent", input={"count": 60, "pause": seconds / 50})
        except NotFoundError:
            return False  # it began too late
        if await _found(client, status="idle") != [thread_id]:
            return False

        async def is_gone() -> bool:
            return await client.threads.count() == 0

        await eventually(is_gone, what="the thread's expiry")
        with pytest.raises(NotFoundError):
            await client.threads.get(thread_id)
    return True


async def test_a_change_may_be_asked_for_without_its_outcome(client: LangGraphClient) -> None:
    [thread_id] = await _made(client, 1)
    changed: Any = await client.threads.update(thread_id, metadata={"a": 1})
    assert changed["metadata"] == {"n": 0, "a": 1}
    minimal = {"prefer": "return=minimal"}
    answer = await client.http.client.patch(f"/threads/{thread_id}", json={"metadata": {"a": 2}}, headers=minimal)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.threads.get(thread_id))["metadata"] == {"n": 0, "a": 2}
