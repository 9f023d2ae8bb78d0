"""The routes without a network: answers, errors, headers."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.exceptions import HTTPException

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import IN_MEMORY, by_header, in_process
from waiting import eventually

pytestmark = pytest.mark.anyio

UNKNOWN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
async def client(replica: Replica, graphs: dict[str, Any]) -> Any:
    async with in_process(create_app(replica, graphs)) as opened:
        yield opened


async def _thread(client: httpx.AsyncClient, **body: Any) -> str:
    answer = await client.post("/threads", json=body)
    assert answer.status_code == 200, answer.text
    thread_id: str = answer.json()["thread_id"]
    return thread_id


async def _finished_run(client: httpx.AsyncClient, thread_id: str, **body: Any) -> dict[str, Any]:
    created = await client.post(f"/threads/{thread_id}/runs", json={"assistant_id": "agent", **body})
    assert created.status_code == 200, created.text
    place = created.headers["content-location"]
    assert place == f"/threads/{thread_id}/runs/{created.json()['run_id']}"

    async def over() -> Any:
        run = (await client.get(place)).json()
        return run if run["status"] not in ("pending", "running") else None

    run: dict[str, Any] = await eventually(over)
    return run


async def test_a_replica_says_that_it_is_there_and_which(client: httpx.AsyncClient, replica: Replica) -> None:
    for path in ("/ok", "/live", "/ready"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
    info = (await client.get("/info")).json()
    assert info["replica_id"] == replica.replica_id
    assert info["flags"] == {"assistants": True, "crons": False, "langsmith": False}


async def test_a_thread_is_made_once(client: httpx.AsyncClient) -> None:
    thread_id = str(uuid4())
    first = (await client.post("/threads", json={"thread_id": thread_id, "metadata": {"a": 1}})).json()
    assert first["thread_id"] == thread_id
    assert first["metadata"] == {"a": 1}
    assert first["status"] == "idle"
    assert (await client.post("/threads", json={"thread_id": thread_id})).status_code == 409
    again = await client.post("/threads", json={"thread_id": thread_id, "if_exists": "do_nothing"})
    assert again.json()["metadata"] == {"a": 1}
    assert (await client.get(f"/threads/{thread_id}")).json() == first


async def test_a_run_in_the_background_is_seen_to_its_end(client: httpx.AsyncClient) -> None:
    thread_id = await _thread(client)
    run = await _finished_run(client, thread_id, input={"count": 3}, metadata={"m": 1})
    assert run["status"] == "success"
    assert run["metadata"]["m"] == 1
    assert run["kwargs"]["input"] == {"count": 3}
    listed = (await client.get(f"/threads/{thread_id}/runs")).json()
    assert [item["run_id"] for item in listed] == [run["run_id"]]
    thread = (await client.get(f"/threads/{thread_id}")).json()
    assert thread["metadata"]["graph_id"] == "agent"
    assert thread["status"] == "idle"
    assert thread["values"]["total"] == 3


async def test_join_answers_with_the_runs_own_values(client: httpx.AsyncClient) -> None:
    thread_id = await _thread(client)
    first = await _finished_run(client, thread_id, input={"count": 3})
    await _finished_run(client, thread_id, input={"count": 5})
    joined = await client.get(f"/threads/{thread_id}/runs/{first['run_id']}/join")
    assert joined.headers["content-type"] == "application/json"
    assert joined.headers["location"] == f"/threads/{thread_id}/runs/{first['run_id']}/join"
    assert joined.json()["total"] == 3


async def test_wait_answers_with_values_interrupts_or_the_error(client: httpx.AsyncClient) -> None:
    thread_id = await _thread(client)
    path = f"/threads/{thread_id}/runs/wait"
    good = await client.post(path, json={"assistant_id": "agent", "input": {"count": 2}})
    assert good.json()["total"] == 2
    bad = await client.post(path, json={"assistant_id": "agent", "input": {"count": 1, "fail": "boom"}})
    assert (bad.status_code, bad.json()) == (200, {"__error__": {"error": "RuntimeError", "message": "boom"}})
    other = f"/threads/{await _thread(client)}/runs/wait"
    asked = (await client.post(other, json={"assistant_id": "asking", "input": {}})).json()
    [question] = asked["__interrupt__"]
    assert question["value"] == "what?"
    resumed = await client.post(other, json={"assistant_id": "asking", "command": {"resume": "that"}})
    assert resumed.json() == {"answer": "that"}


async def test_the_state_of_a_thread(client: httpx.AsyncClient) -> None:
    thread_id = await _thread(client)
    empty = (await client.get(f"/threads/{thread_id}/state")).json()
    assert (empty["values"], empty["next"], empty["checkpoint_id"]) == ({}, [], None)
    await _finished_run(client, thread_id, assistant_id="asking", input={})
    state = (await client.get(f"/threads/{thread_id}/state")).json()
    assert state["next"] == ["ask"]
    assert state["tasks"][0]["interrupts"][0]["value"] == "what?"
    assert state["checkpoint"]["thread_id"] == thread_id
    assert state["checkpoint_id"] == state["checkpoint"]["checkpoint_id"]


async def test_an_assistant_stands_for_each_graph(client: httpx.AsyncClient) -> None:
    found = (await client.post("/assistants/search", json={})).json()
    assert sorted(item["graph_id"] for item in found) == ["agent", "asking"]
    [agent] = (await client.post("/assistants/search", json={"graph_id": "agent"})).json()
    assert (await client.get(f"/assistants/{agent['assistant_id']}")).json() == agent
    assert (await client.get("/assistants/agent")).json() == agent
    assert (await client.get("/assistants/nobody")).status_code == 404
    thread_id = await _thread(client)
    run = await _finished_run(client, thread_id, assistant_id=agent["assistant_id"], input={"count": 1})
    assert run["assistant_id"] == agent["assistant_id"]


async def test_a_thread_appears_with_the_first_run_if_the_body_says_so(client: httpx.AsyncClient) -> None:
    path = f"/threads/{uuid4()}/runs/wait"
    body = {"assistant_id": "agent", "input": {"count": 1}}
    assert (await client.post(path, json=body)).status_code == 404
    assert (await client.post(path, json={**body, "if_not_exists": "create"})).json()["total"] == 1


async def test_reject_answers_409_and_creates_nothing(client: httpx.AsyncClient) -> None:
    thread_id = await _thread(client)
    slow = {"assistant_id": "agent", "input": {"count": 200, "pause": 0.05}}
    first = (await client.post(f"/threads/{thread_id}/runs", json=slow)).json()
    for path in ("runs", "runs/stream", "runs/wait"):
        answer = await client.post(f"/threads/{thread_id}/{path}", json={**slow, "multitask_strategy": "reject"})
        assert answer.status_code == 409
    assert [run["run_id"] for run in (await client.get(f"/threads/{thread_id}/runs")).json()] == [first["run_id"]]
    assert (await client.post(f"/threads/{thread_id}/runs/{first['run_id']}/cancel")).status_code == 202
    joined = await client.get(f"/threads/{thread_id}/runs/{first['run_id']}/join")
    assert joined.status_code == 200
    again = await client.post(f"/threads/{thread_id}/runs/{first['run_id']}/cancel")
    assert again.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/threads", b"{", 422),
        ("POST", "/threads", b"[]", 422),
        ("POST", "/threads", b'{"thread_id":"x"}', 422),
        ("POST", "/threads", b'{"metadata":[]}', 422),
        ("POST", "/threads/search", b'{"limit":0}', 422),
        ("POST", "/threads/search", b'{"limit":1001}', 422),
        ("POST", "/threads/search", b'{"limit":"10"}', 422),
        ("POST", "/threads/search", b'{"limit":true}', 422),
        ("GET", "/threads/not-a-uuid", b"", 422),
        ("GET", f"/threads/{UNKNOWN}", b"", 404),
        ("GET", f"/threads/{UNKNOWN}/runs", b"", 404),
        ("GET", f"/threads/{UNKNOWN}/state", b"", 404),
        ("GET", f"/threads/{UNKNOWN}/runs/{UNKNOWN}", b"", 404),
        ("GET", f"/threads/{UNKNOWN}/runs/{UNKNOWN}/stream", b"", 404),
        ("GET", f"/threads/{UNKNOWN}/runs/{UNKNOWN}/join", b"", 404),
        ("POST", f"/threads/{UNKNOWN}/runs/stream", b'{"assistant_id":"agent"}', 404),
        ("GET", "/no/such/route", b"", 404),
        ("DELETE", "/threads", b"", 405),
        ("POST", "/ok", b"", 405),
    ],
)
async def test_a_wrong_request_gets_its_status_and_a_reason(
    client: httpx.AsyncClient, replica: Replica, method: str, path: str, body: bytes, status: int
) -> None:
    answer = await client.request(method, path, content=body)
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)
    assert answer.headers["x-replica-id"] == replica.replica_id


@pytest.mark.parametrize(
    "wrong",
    [
        {"assistant_id": "nobody"},
        {"assistant_id": None},
        {"stream_mode": "events"},
        {"stream_mode": ["values", "nonsense"]},
        {"webhook": "http://localhost/"},
        {"config": {"configurable": []}},
        {"command": {"goto": {"no": "node"}}},
        {"command": {"update": [["a"]]}},
        {"multitask_strategy": "whatever"},
        {"durability": "never"},
    ],
)
async def test_a_wrong_run_is_refused_before_anything_exists(client: httpx.AsyncClient, wrong: dict[str, Any]) -> None:
    thread_id = await _thread(client)
    answer = await client.post(f"/threads/{thread_id}/runs", json={"assistant_id": "agent", "input": {}, **wrong})
    assert answer.status_code == 422, answer.text
    assert (await client.get(f"/threads/{thread_id}/runs")).json() == []


async def test_a_large_body_is_refused(replica: Replica, graphs: dict[str, Any]) -> None:
    async with in_process(create_app(replica, graphs)) as client:
        answer = await client.post("/threads", content=b" " * (16 * 2**20 + 1))
    assert answer.status_code == 413


async def test_search_pages_and_counts(client: httpx.AsyncClient) -> None:
    made = [await _thread(client, metadata={"even": number % 2 == 0}) for number in range(5)]
    first = await client.post("/threads/search", json={"limit": 2})
    assert [row["thread_id"] for row in first.json()] == made[:2:-1]
    assert (first.headers["x-pagination-total"], first.headers["x-pagination-next"]) == ("5", "2")
    last = await client.post("/threads/search", json={"limit": 2, "offset": 4})
    assert [row["thread_id"] for row in last.json()] == made[:1]
    assert "x-pagination-next" not in last.headers
    even = await client.post("/threads/search", json={"metadata": {"even": True}, "sort_order": "asc"})
    assert [row["thread_id"] for row in even.json()] == made[::2]
    assert (await client.post("/threads/count", json={"metadata": {"even": True}})).json() == 3
    chosen = await client.post("/threads/search", json={"ids": made[:1], "select": ["thread_id"]})
    assert chosen.json() == [{"thread_id": made[0]}]


async def test_browsers_may_read_what_the_clients_need(client: httpx.AsyncClient) -> None:
    answer = await client.get("/ok", headers={"origin": "http://elsewhere"})
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert all(name in exposed for name in ("location", "content-location", "x-pagination-total", "x-pagination-next"))
    preflight = await client.options(
        "/threads",
        headers={
            "origin": "http://elsewhere",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-anything",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == "x-anything"


async def test_who_is_not_known_is_refused_before_the_body_is_read(replica: Replica, graphs: dict[str, Any]) -> None:
    async with in_process(create_app(replica, graphs, authenticate=by_header)) as client:
        for path in ("/ok", "/live", "/ready", "/info"):
            assert (await client.get(path)).status_code == 200
        answer = await client.post("/threads", content=b"{")
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})


async def test_a_hook_may_refuse_in_its_own_way_and_never_leaks(replica: Replica, graphs: dict[str, Any]) -> None:
    async def forbids(request: Any) -> str | None:
        raise HTTPException(403, "not you")

    def fails(request: Any) -> str | None:
        raise RuntimeError("the secret")

    async with in_process(create_app(replica, graphs, authenticate=forbids)) as client:
        answer = await client.post("/threads/search")
        assert (answer.status_code, answer.json()) == (403, {"detail": "not you"})
    async with in_process(create_app(replica, graphs, authenticate=fails)) as client:
        answer = await client.post("/threads/search")
        assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
        assert answer.headers["x-replica-id"] == replica.replica_id


async def test_a_replica_that_was_left_answers_503_and_is_not_ready(graphs: dict[str, Any]) -> None:
    async with open_replica(AppConfig.from_mapping(IN_MEMORY)) as replica:
        app = create_app(replica, graphs)
        async with in_process(app) as client:
            thread_id = await _thread(client)
    async with in_process(app) as client:
        assert (await client.get("/ok")).status_code == 200
        assert (await client.get("/ready")).status_code == 503
        assert (await client.post("/threads", json={})).status_code == 503
        run = await client.post(f"/threads/{thread_id}/runs", json={"assistant_id": "agent"})
        assert run.status_code == 503
