"""Assistants through the official client: those of the graphs, and those that users make."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.gateway.endpoint import Endpoint
from deerflow_replica.gateway.ids import system_assistant_id
from deerflow_replica.gateway.routes import ENDPOINTS
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import by_header, in_process, official

pytestmark = pytest.mark.anyio

SYSTEM = system_assistant_id("agent")
FIELDS = {
    "assistant_id", "graph_id", "name", "description", "config", "context", "metadata", "version", "created_at",
    "updated_at",
}  # fmt: skip
ABOUT_ONE = [endpoint for endpoint in ENDPOINTS if "{assistant_id}" in endpoint.path]


@pytest.fixture
def app(replica: Replica, graphs: dict[str, Any]) -> Any:
    return create_app(replica, graphs)


@pytest.fixture
def guarded(replica: Replica, graphs: dict[str, Any]) -> Any:
    return create_app(replica, graphs, authenticate=by_header)


async def test_what_is_created_can_be_read(app: Any) -> None:
    given: dict[str, Any] = {
        "config": {"tags": ["t"], "configurable": {"model": "m"}},
        "context": {"agent_name": "é"},
        "metadata": {"team": {"n": 1}},
        "name": "Mine",
        "description": "what it does",
    }
    async with official(app) as client:
        made = await client.assistants.create("agent", **given)
        assert {key: dict(made)[key] for key in given} == given
        assert set(made) == FIELDS
        assert (made["graph_id"], made["version"], made["created_at"]) == ("agent", 1, made["updated_at"])
        assert await client.assistants.get(made["assistant_id"]) == made
        bare = await client.assistants.create("agent")
        assert (bare["name"], bare["description"], bare["config"], bare["context"]) == ("Untitled", None, {}, {})


async def test_a_graph_has_an_assistant_that_is_the_same_everywhere(
    replica: Replica, app: Any, graphs: dict[str, Any]
) -> None:
    async with official(app) as client, official(create_app(replica, graphs, authenticate=by_header), "u") as other:
        by_name = await client.assistants.get("agent")
        assert set(by_name) == FIELDS
        assert (by_name["assistant_id"], by_name["metadata"]) == (SYSTEM, {"created_by": "system"})
        assert by_name == await client.assistants.get(SYSTEM) == await client.assistants.get(SYSTEM.upper())
        assert by_name == await other.assistants.get("agent")


@pytest.mark.parametrize("name", ["agent", SYSTEM])
async def test_a_graphs_own_assistant_stays_as_it_is(app: Any, name: str) -> None:
    async with official(app) as client:
        before = await client.assistants.get(name)
        with pytest.raises(ConflictError):
            await client.assistants.delete(name)
        with pytest.raises(ConflictError):
            await client.assistants.update(name, metadata={"mine": 1})
        with pytest.raises(ConflictError):
            await client.assistants.create("asking", assistant_id=SYSTEM)
        assert await client.assistants.create("asking", assistant_id=SYSTEM, if_exists="do_nothing") == before
        assert await client.assistants.get(name) == before


async def test_an_id_is_taken_once(app: Any) -> None:
    assistant_id = str(uuid4())
    async with official(app) as client:
        made = await client.assistants.create("agent", assistant_id=assistant_id, name="first")
        with pytest.raises(ConflictError):
            await client.assistants.create("agent", assistant_id=assistant_id.upper(), name="second")
        again = await client.assistants.create(
            "asking", assistant_id=assistant_id, name="third", if_exists="do_nothing"
        )
        assert again == made == await client.assistants.get(assistant_id)


async def test_a_change_merges_metadata_and_replaces_the_rest(app: Any) -> None:
    async with official(app) as client:
        made = await client.assistants.create(
            "agent", {"tags": ["t"]}, name="n", context={"a": 1}, metadata={"old": 1, "both": 1}
        )
        changed = await client.assistants.update(
            made["assistant_id"], graph_id="asking", context={"b": 2}, metadata={"both": 2}, description="d"
        )
        assert (changed["graph_id"], changed["name"], changed["description"]) == ("asking", "n", "d")
        assert (changed["config"], changed["context"]) == ({"tags": ["t"]}, {"b": 2})
        assert changed["metadata"] == {"old": 1, "both": 2}
        assert (changed["version"], changed["created_at"]) == (2, made["created_at"])
        assert await client.assistants.get(made["assistant_id"]) == changed
    async with in_process(app) as plain:
        emptied = await plain.patch(f"/assistants/{made['assistant_id']}", json={"config": {}, "context": {}})
        assert (emptied.json()["config"], emptied.json()["context"]) == ({}, {})


async def test_what_is_deleted_is_gone(app: Any) -> None:
    async with official(app) as client:
        assistant_id = (await client.assistants.create("agent"))["assistant_id"]
        await client.assistants.delete(assistant_id)
        for gone in (client.assistants.get, client.assistants.delete, client.assistants.update):
            with pytest.raises(NotFoundError):
                await gone(assistant_id)
        with pytest.raises(UnprocessableEntityError):
            await client.runs.create((await client.threads.create())["thread_id"], assistant_id)


@pytest.mark.parametrize("unknown", ["nobody", "AGENT", "6e6f626f-6479-4000-8000-000000000000", "' OR 1=1 --", "é"])
async def test_an_unknown_one_is_404(app: Any, unknown: str) -> None:
    async with official(app) as client:
        for ask in (
            client.assistants.get,
            client.assistants.update,
            client.assistants.delete,
            client.assistants.get_graph,
            client.assistants.get_schemas,
            client.assistants.get_subgraphs,
        ):
            with pytest.raises(NotFoundError):
                await ask(unknown)


async def test_search_and_count_find_both_kinds(app: Any) -> None:
    async with official(app) as client:
        one = await client.assistants.create("agent", name="Agent 007", metadata={"k": 1})
        two = await client.assistants.create("asking", name="other", metadata={"k": 1})
        ids = [one["assistant_id"], two["assistant_id"]]
        asking = system_assistant_id("asking")
        wanted: list[tuple[dict[str, Any], set[str]]] = [
            ({}, {*ids, SYSTEM, asking}),
            ({"graph_id": "agent"}, {ids[0], SYSTEM}),
            ({"metadata": {"k": 1}}, set(ids)),
            ({"metadata": {"created_by": "system"}}, {SYSTEM, asking}),
            ({"name": "AGENT"}, {ids[0], SYSTEM}),
            ({"name": "agent 0", "graph_id": "asking"}, set()),
        ]
        for query, expected in wanted:
            assert {found["assistant_id"] for found in await client.assistants.search(**query)} == expected
            assert await client.assistants.count(**query) == len(expected)


@pytest.mark.parametrize("sort_order", ["asc", "desc"])
@pytest.mark.parametrize("sort_by", ["assistant_id", "graph_id", "name", "created_at", "updated_at", None])
async def test_pages_of_both_kinds_neither_repeat_nor_skip(app: Any, sort_by: Any, sort_order: Any) -> None:
    async with official(app) as client:
        for name in ("b", "agent", "asking", "a", "b", "c"):
            await client.assistants.create("agent", name=name)
        order = {"sort_by": sort_by, "sort_order": sort_order}
        whole = await client.assistants.search(**order, limit=100)
        assert len(whole) == 8
        key = sort_by or "created_at"
        expected = sorted(whole, key=lambda one: (dict(one)[key], one["assistant_id"]), reverse=sort_order == "desc")
        assert whole == expected
        for limit in (1, 3, 8):
            pages: list[Any] = []
            cursor: str | None = "0"
            while cursor is not None:
                page = await client.assistants.search(
                    **order, limit=limit, offset=int(cursor), response_format="object"
                )
                pages += page["assistants"]
                cursor = page["next"]
            assert pages == whole


async def test_newest_first_and_only_the_selected_fields(app: Any) -> None:
    async with official(app) as client:
        for name in ("one", "two"):
            await client.assistants.create("agent", name=name)
        found: Any = await client.assistants.search(graph_id="agent", select=["name", "version"])
        assert found == [{"name": name, "version": 1} for name in ("two", "one", "agent")]


# Whose they are


async def test_created_ones_belong_to_their_creator(guarded: Any, replica: Replica, graphs: dict[str, Any]) -> None:
    async with official(guarded, "alice") as alice, official(guarded, "mallory") as mallory:
        mine = await alice.assistants.create("agent", name="secret", metadata={"k": 1})
        assistant_id = mine["assistant_id"]
        with pytest.raises(ConflictError):
            await mallory.assistants.create("agent", assistant_id=assistant_id)
        with pytest.raises(ConflictError):
            await mallory.assistants.create("agent", assistant_id=assistant_id, if_exists="do_nothing")
        async with official(create_app(replica, graphs)) as anonymous:
            for stranger in (mallory, anonymous):
                assert await stranger.assistants.search(metadata={"k": 1}) == []
                assert await stranger.assistants.count() == 2
                thread = (await stranger.threads.create())["thread_id"]
                for run in (stranger.runs.create, stranger.runs.wait):
                    with pytest.raises(httpx.HTTPStatusError) as refused:
                        await run(thread, assistant_id)
                    assert refused.value.response.status_code == 422
        assert await alice.assistants.get(assistant_id) == mine
        assert await alice.assistants.search(metadata={"k": 1}) == [mine]


@pytest.mark.parametrize("endpoint", ABOUT_ONE, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
async def test_anothers_is_one_that_does_not_exist(
    guarded: Any, replica: Replica, graphs: dict[str, Any], endpoint: Endpoint
) -> None:
    async with in_process(guarded, "alice") as alice, in_process(guarded, "mallory") as mallory:
        mine = (await alice.post("/assistants", json={"graph_id": "agent", "name": "secret"})).json()
        paths = [
            endpoint.path.format(assistant_id=name, namespace="x") for name in (mine["assistant_id"], str(uuid4()))
        ]
        async with in_process(create_app(replica, graphs)) as anonymous:
            for stranger in (mallory, anonymous):
                answers = [await stranger.request(endpoint.method, path, json={"name": "n"}) for path in paths]
                assert [answer.status_code for answer in answers] == [404, 404]
                assert answers[0].content == answers[1].content
        assert (await alice.get(f"/assistants/{mine['assistant_id']}")).json() == mine


async def test_without_authenticate_they_are_shared(app: Any, guarded: Any) -> None:
    async with official(app) as one, official(app) as other, official(guarded, "u") as user:
        made = await one.assistants.create("agent")
        assert await other.assistants.get(made["assistant_id"]) == made
        with pytest.raises(NotFoundError):
            await user.assistants.get(made["assistant_id"])


# Two replicas


async def test_of_two_replicas_that_create_the_same_one_wins(
    postgres_dsn: str, postgres_schema: str, graphs: dict[str, Any]
) -> None:
    database = {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema}
    config = AppConfig.from_mapping({"database": database})
    async with (
        open_replica(config) as one,
        open_replica(config) as two,
        in_process(create_app(one, graphs)) as first,
        in_process(create_app(two, graphs)) as second,
    ):
        body = {"graph_id": "agent", "assistant_id": str(uuid4())}
        asked = [(first, second)[n % 2].post("/assistants", json={**body, "name": str(n)}) for n in range(10)]
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status_code for answer in answers) == [200, *[409] * 9]
        [made] = [answer.json() for answer in answers if answer.status_code == 200]
        for client in (first, second):
            assert (await client.get(f"/assistants/{body['assistant_id']}")).json() == made
        same = {**body, "if_exists": "do_nothing"}
        assert (await second.post("/assistants", json=same)).json() == made
