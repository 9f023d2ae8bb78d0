"""Every route, as somebody else: a foreign thread is one that does not exist. Generated from the route table."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.gateway.endpoint import Endpoint
from deerflow_replica.gateway.routes import ENDPOINTS
from deerflow_replica.replica import Replica
from gateway.serving import by_header, in_process

pytestmark = pytest.mark.anyio

BODIES: dict[str, Any] = {
    "runs": {"assistant_id": "agent", "input": {"count": 1}},
    "runs/stream": {"assistant_id": "agent", "input": {"count": 1}},
    "runs/wait": {"assistant_id": "agent", "input": {"count": 1}},
}
ABOUT_A_THREAD = [endpoint for endpoint in ENDPOINTS if "{thread_id}" in endpoint.path]
WITHOUT_A_THREAD = {
    "GET /ok",
    "GET /live",
    "GET /ready",
    "GET /info",
    "GET /metrics",
    "POST /assistants/search",
    "GET /assistants/{assistant_id}",
    "POST /threads",
    "POST /threads/search",
    "POST /threads/count",
}


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture
def app(replica: Replica, graphs: dict[str, Any]) -> Any:
    return create_app(replica, graphs, authenticate=by_header)


async def _ask(
    client: httpx.AsyncClient, endpoint: Endpoint, thread_id: str, run_id: str, **more: Any
) -> httpx.Response:
    path = endpoint.path.format(thread_id=thread_id, run_id=run_id)
    body = BODIES.get(endpoint.path.removeprefix("/threads/{thread_id}/"))
    if body is None:
        return await client.request(endpoint.method, path)
    return await client.request(endpoint.method, path, json={**body, **more})


async def _owned_thread(app: Any) -> tuple[str, str]:
    async with in_process(app, "alice") as alice:
        thread_id: str = (await alice.post("/threads", json={"metadata": {"mine": 1}})).json()["thread_id"]
        done = await alice.post(f"/threads/{thread_id}/runs/wait", json=BODIES["runs"])
        assert done.json()["total"] == 1
        [run] = (await alice.get(f"/threads/{thread_id}/runs")).json()
        return thread_id, run["run_id"]


async def _as_seen_by_alice(app: Any, thread_id: str) -> Any:
    async with in_process(app, "alice") as alice:
        thread = (await alice.get(f"/threads/{thread_id}")).json()
        return thread, (await alice.get(f"/threads/{thread_id}/runs")).json()


def test_every_route_is_either_about_a_thread_or_known_not_to_be() -> None:
    assert {_name(endpoint) for endpoint in ENDPOINTS if endpoint not in ABOUT_A_THREAD} == WITHOUT_A_THREAD


@pytest.mark.parametrize("endpoint", ABOUT_A_THREAD, ids=_name)
async def test_a_foreign_thread_is_one_that_does_not_exist(app: Any, endpoint: Endpoint) -> None:
    thread_id, run_id = await _owned_thread(app)
    before = await _as_seen_by_alice(app, thread_id)
    async with in_process(app, "mallory") as mallory:
        foreign = await _ask(mallory, endpoint, thread_id, run_id)
        missing = await _ask(mallory, endpoint, str(uuid4()), str(uuid4()))
    assert (foreign.status_code, foreign.content) == (404, missing.content)
    assert missing.status_code == 404
    assert set(foreign.headers) == set(missing.headers)
    assert await _as_seen_by_alice(app, thread_id) == before


@pytest.mark.parametrize("endpoint", [e for e in ABOUT_A_THREAD if e.opens_thread], ids=_name)
async def test_a_foreign_thread_cannot_be_created_either(app: Any, endpoint: Endpoint) -> None:
    thread_id, run_id = await _owned_thread(app)
    before = await _as_seen_by_alice(app, thread_id)
    async with in_process(app, "mallory") as mallory:
        answer = await _ask(mallory, endpoint, thread_id, run_id, if_not_exists="create")
    assert answer.status_code == 404
    assert await _as_seen_by_alice(app, thread_id) == before


@pytest.mark.parametrize("endpoint", [e for e in ABOUT_A_THREAD if "{run_id}" in e.path], ids=_name)
async def test_a_run_is_found_under_its_own_thread_only(app: Any, endpoint: Endpoint) -> None:
    _, run_id = await _owned_thread(app)
    async with in_process(app, "alice") as alice:
        other: str = (await alice.post("/threads", json={})).json()["thread_id"]
        assert (await _ask(alice, endpoint, other, run_id)).status_code == 404


@pytest.mark.parametrize("endpoint", ABOUT_A_THREAD, ids=_name)
async def test_nobody_is_no_way_round_an_owner(
    app: Any, replica: Replica, graphs: dict[str, Any], endpoint: Endpoint
) -> None:
    thread_id, run_id = await _owned_thread(app)
    before = await _as_seen_by_alice(app, thread_id)
    async with in_process(create_app(replica, graphs)) as anonymous:
        assert (await _ask(anonymous, endpoint, thread_id, run_id)).status_code == 404
        if endpoint.opens_thread:
            assert (await _ask(anonymous, endpoint, thread_id, run_id, if_not_exists="create")).status_code == 404
    assert await _as_seen_by_alice(app, thread_id) == before


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if not e.public], ids=_name)
async def test_a_stranger_gets_401_everywhere(app: Any, endpoint: Endpoint) -> None:
    async with in_process(app) as stranger:
        path = endpoint.path.format(thread_id=uuid4(), run_id=uuid4(), assistant_id="agent")
        assert (await stranger.request(endpoint.method, path)).status_code == 401


@pytest.mark.parametrize("if_exists", ["raise", "do_nothing"])
async def test_an_id_that_is_somebody_elses_is_taken(app: Any, if_exists: str) -> None:
    thread_id, _ = await _owned_thread(app)
    async with in_process(app, "mallory") as mallory:
        answer = await mallory.post("/threads", json={"thread_id": thread_id, "if_exists": if_exists})
    assert answer.status_code == 409


async def test_search_and_count_show_ones_own_threads(app: Any, replica: Replica, graphs: dict[str, Any]) -> None:
    thread_id, _ = await _owned_thread(app)
    async with in_process(app, "alice") as alice, in_process(app, "mallory") as mallory:
        own: str = (await mallory.post("/threads", json={"metadata": {"mine": 1}})).json()["thread_id"]
        for query in ({}, {"metadata": {"mine": 1}}, {"status": "idle"}, {"ids": [thread_id, own]}):
            assert [row["thread_id"] for row in (await mallory.post("/threads/search", json=query)).json()] == [own]
            assert [row["thread_id"] for row in (await alice.post("/threads/search", json=query)).json()] == [thread_id]
            assert (await mallory.post("/threads/count", json=query)).json() == 1
    async with in_process(create_app(replica, graphs)) as anonymous:
        assert (await anonymous.post("/threads/search", json={})).json() == []
        shared: str = (await anonymous.post("/threads", json={})).json()["thread_id"]
        assert [row["thread_id"] for row in (await anonymous.post("/threads/search", json={})).json()] == [shared]


async def test_the_input_of_a_stranger_never_reaches_the_thread(app: Any) -> None:
    thread_id, _ = await _owned_thread(app)
    async with in_process(app, "alice") as alice, in_process(app, "mallory") as mallory:
        before = (await alice.get(f"/threads/{thread_id}/state")).json()
        await mallory.post(f"/threads/{thread_id}/runs/wait", json={**BODIES["runs"], "input": {"total": 666}})
        own: str = (await mallory.post("/threads", json={})).json()["thread_id"]
        sneaky = {
            **BODIES["runs"],
            "config": {"configurable": {"thread_id": thread_id}},
            "checkpoint": {"thread_id": thread_id},
        }
        assert (await mallory.post(f"/threads/{own}/runs/wait", json=sneaky)).json()["total"] == 1
        assert (await alice.get(f"/threads/{thread_id}/state")).json() == before


async def test_a_thread_that_was_only_claimed_is_there_for_its_owner(app: Any, replica: Replica) -> None:
    thread_id = str(uuid4())
    await replica.threads.claim(thread_id, "alice")
    async with in_process(app, "alice") as alice, in_process(app, "mallory") as mallory:
        assert (await alice.get(f"/threads/{thread_id}")).json()["thread_id"] == thread_id
        assert [row["thread_id"] for row in (await alice.post("/threads/search", json={})).json()] == [thread_id]
        assert (await mallory.get(f"/threads/{thread_id}")).status_code == 404
        done = await alice.post(f"/threads/{thread_id}/runs/wait", json=BODIES["runs"])
        assert done.json()["total"] == 1
