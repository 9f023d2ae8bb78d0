"""Runs that are deleted, cancelled, put off, begun from a checkpoint, or left by their client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway.calling import SLOW, client_of, started, status_of
from gateway.replicas import two_replicas
from gateway.serving import Clients, by_header, served
from waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(replica: Replica, graphs: dict[str, Any]) -> AsyncIterator[LangGraphClient]:
    async with client_of(create_app(replica, graphs, authenticate=by_header), "u") as opened:
        yield opened


async def _pending(client: LangGraphClient, thread_id: str) -> str:
    return str((await client.runs.create(thread_id, "agent", input={"count": 1}))["run_id"])


async def _gone(client: LangGraphClient, thread_id: str, run_id: str) -> bool:
    return run_id not in [run["run_id"] for run in await client.runs.list(thread_id)]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=1.5", "limit=", "limit=%D9%A3", "offset=-1", "offset=99999999999", "status=x"],
)
async def test_a_list_that_cannot_be_is_refused(client: LangGraphClient, query: str) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    answer = await client.http.client.get(f"/threads/{thread_id}/runs?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


async def test_a_path_names_uuids(client: LangGraphClient) -> None:
    http, thread_id = client.http.client, str((await client.threads.create())["thread_id"])
    wrong = ["x", "0", thread_id[:-1], thread_id.replace("-", ""), "{" + thread_id + "}", "%00", thread_id + "%0A"]
    for one in wrong:
        for method, path in (("GET", f"/threads/{one}"), ("DELETE", f"/threads/{thread_id}/runs/{one}")):
            assert (await http.request(method, path)).status_code == 422, (method, path)
    assert (await http.get(f"/threads/{thread_id.upper()}")).json()["thread_id"] == thread_id
    for method, path in (("PUT", f"/threads/{thread_id}"), ("GET", "/runs"), ("PATCH", f"/threads/{thread_id}/runs")):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"}), (method, path)


# Delete


async def test_a_run_that_is_over_is_deleted(client: LangGraphClient) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    await client.runs.wait(thread_id, "agent", input={"count": 1})
    [run] = await client.runs.list(thread_id)
    await client.runs.delete(thread_id, run["run_id"])
    assert await client.runs.list(thread_id) == []
    with pytest.raises(NotFoundError):
        await client.runs.delete(thread_id, run["run_id"])


async def test_a_run_that_goes_on_is_stopped_and_deleted(client: LangGraphClient, replica: Replica) -> None:
    thread_id, run_id = await started(client)
    await client.runs.delete(thread_id, run_id)
    assert await replica.runs.get(run_id) is None
    assert (await client.threads.get(thread_id))["status"] == "idle"
    assert await client.threads.count(status="idle") == 1


async def test_a_busy_thread_is_deleted_with_its_runs(client: LangGraphClient, replica: Replica) -> None:
    thread_id, run_id = await started(client)
    waiting = await _pending(client, thread_id)
    await client.threads.delete(thread_id)
    assert [await replica.runs.get(one) for one in (run_id, waiting)] == [None, None]
    assert await replica.runs.get_thread(thread_id) is None
    assert await replica.threads.owner_of(thread_id) is None
    assert [one async for one in replica.checkpointer.alist({"configurable": {"thread_id": thread_id}})] == []
    assert await client.threads.search() == []
    with pytest.raises(NotFoundError):
        await client.threads.delete(thread_id)
    assert (await client.threads.create(thread_id=thread_id))["values"] is None


# Cancel


async def _cancelled_together(client: LangGraphClient, body: dict[str, Any]) -> int:
    """The status; clients have had a method for it since 0.4 only."""
    return (await client.http.client.post("/runs/cancel", json=body)).status_code


async def test_runs_of_a_thread_are_cancelled_together(client: LangGraphClient) -> None:
    thread_id, run_id = await started(client)
    waiting = await _pending(client, thread_id)
    body = {"thread_id": thread_id, "run_ids": [run_id, waiting]}
    assert await _cancelled_together(client, body) == 204
    for one in (run_id, waiting):
        await status_of(client, thread_id, one, "interrupted")
    assert await _cancelled_together(client, body) == 404


async def test_runs_of_all_threads_are_cancelled_by_status(client: LangGraphClient) -> None:
    (thread_id, run_id), (other_thread, other) = await started(client), await started(client)
    waiting = await _pending(client, thread_id)
    assert await _cancelled_together(client, {"status": "pending"}) == 204
    await status_of(client, thread_id, waiting, "interrupted")
    assert (await client.runs.get(thread_id, run_id))["status"] == "running"
    assert await _cancelled_together(client, {"status": "all"}) == 204
    await status_of(client, thread_id, run_id, "interrupted")
    await status_of(client, other_thread, other, "interrupted")


@pytest.mark.parametrize("body", [{}, {"run_ids": []}, {"thread_id": None}, {"status": "success"}, {"run_ids": ["x"]}])
async def test_a_cancellation_of_nothing_is_refused(replica: Replica, graphs: dict[str, Any], body: Any) -> None:
    async with client_of(create_app(replica, graphs)) as client:
        answer = await client.http.client.post("/runs/cancel", json=body)
        assert answer.status_code == 422, answer.text


async def test_a_rolled_back_run_leaves_the_thread_as_it_was(client: LangGraphClient) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    await client.runs.wait(thread_id, "agent", input={"count": 2})
    before = await client.threads.get_state(thread_id), await client.threads.get_history(thread_id)
    run = await client.runs.create(thread_id, "agent", input=SLOW)
    await status_of(client, thread_id, run["run_id"], "running")
    await client.runs.cancel(thread_id, run["run_id"], wait=True, action="rollback")
    assert await _gone(client, thread_id, run["run_id"])
    assert (await client.threads.get_state(thread_id), await client.threads.get_history(thread_id)) == before
    assert (await client.threads.get(thread_id))["status"] == "idle"
    assert await client.threads.count(status="idle") == 1


async def test_an_unknown_action_is_refused(client: LangGraphClient) -> None:
    thread_id, run_id = await started(client)
    answer = await client.http.client.post(f"/threads/{thread_id}/runs/{run_id}/cancel?action=explode")
    assert answer.status_code == 422
    assert "action" in answer.json()["detail"]
    assert (await client.runs.get(thread_id, run_id))["status"] == "running"
    await client.runs.cancel(thread_id, run_id, wait=True)


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_new_run_takes_the_place_of_the_one_before(client: LangGraphClient, strategy: Any) -> None:
    thread_id, run_id = await started(client)
    answer: Any = await client.runs.wait(
        thread_id, "agent", input={"count": 3, "pause": 0}, multitask_strategy=strategy
    )
    assert answer["total"] == 3
    if strategy == "interrupt":
        assert (await client.runs.get(thread_id, run_id))["status"] == "interrupted"
    else:
        assert await _gone(client, thread_id, run_id)


# Later, and from elsewhere


async def test_a_run_may_be_put_off(client: LangGraphClient) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    late = await client.runs.create(thread_id, "agent", input={"count": 1}, after_seconds=3600)
    assert late["status"] == "pending"
    await client.runs.wait(thread_id, "agent", input={"count": 2})
    assert (await client.runs.get(thread_id, late["run_id"]))["status"] == "pending"
    await client.runs.cancel(thread_id, late["run_id"], wait=True)
    assert (await client.runs.get(thread_id, late["run_id"]))["status"] == "interrupted"


@pytest.mark.parametrize("wrong", [-1, 1e300])
async def test_a_delay_that_cannot_be_is_refused(client: LangGraphClient, wrong: float) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    body = {"assistant_id": "agent", "after_seconds": wrong}
    answer = await client.http.client.post(f"/threads/{thread_id}/runs", json=body)
    assert answer.status_code == 422
    assert "after_seconds" in answer.json()["detail"]


@pytest.mark.parametrize("way", ["checkpoint", "checkpoint_id"])
async def test_a_run_begins_from_the_checkpoint_it_names(client: LangGraphClient, way: str) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    for count in (2, 3):
        await client.runs.wait(thread_id, "agent", input={"count": count})
    before: Any = [one for one in await client.threads.get_history(thread_id) if not one["next"]]
    first = before[-1]["checkpoint"]
    answer: Any = await client.runs.wait(
        thread_id, "agent", input={"pause": 0}, **{way: first if way == "checkpoint" else first["checkpoint_id"]}
    )
    assert answer == {"count": 2, "total": 2, "pause": 0}
    after: Any = await client.threads.get_history(thread_id)
    assert first in [one["parent_checkpoint"] for one in after if one["metadata"]["source"] == "input"]
    assert [one["values"]["total"] for one in after if not one["next"]] == [2, 3, 2]


async def test_a_checkpoint_that_the_thread_does_not_have_is_refused(client: LangGraphClient) -> None:
    thread_id, other = [str((await client.threads.create())["thread_id"]) for _ in range(2)]
    await client.runs.wait(other, "agent", input={"count": 1})
    [foreign] = (await client.threads.get_history(other))[:1]
    await client.runs.wait(thread_id, "agent", input={"count": 2})
    for where in (foreign["checkpoint"], {"checkpoint_id": "1ef4f797-8335-6428-8001-8a1503f9b875"}):
        with pytest.raises(httpx.HTTPStatusError, match="Checkpoint not found"):
            await client.runs.wait(thread_id, "agent", input={"count": 3}, checkpoint=where)  # type: ignore[arg-type]  # a plain dict will do
    assert (await client.threads.get_state(thread_id))["values"]["total"] == 2  # type: ignore[call-overload]  # the SDK types values as a list too


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_durability_says_which_checkpoints_there_are(client: LangGraphClient, durability: Any) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    await client.runs.wait(thread_id, "agent", input={"count": 1}, durability=durability)
    history = await client.threads.get_history(thread_id)
    assert len(history) == (1 if durability == "exit" else 3)


# A client that leaves


@pytest.fixture
async def url(replica: Replica, graphs: dict[str, Any]) -> AsyncIterator[str]:
    async with served(create_app(replica, graphs)) as base:
        yield base


async def _status(replica: Replica, place: str) -> str:
    run = await replica.runs.get(place.rpartition("/")[2])
    assert run is not None
    return run.status


async def _is_cancelled(replica: Replica, place: str) -> None:
    async def is_over() -> bool:
        return await _status(replica, place) == "interrupted"

    await eventually(is_over, what="the run's end after its client left")


@pytest.mark.parametrize("path", ["/runs/stream", "/runs/wait", "/threads/{}/runs/stream", "/threads/{}/runs/wait"])
async def test_a_run_ends_with_its_client_if_asked_to(url: str, replica: Replica, sdk: Clients, path: str) -> None:
    thread = await sdk(url).threads.create()
    place = path.format(thread["thread_id"])
    body = {"assistant_id": "agent", "input": SLOW}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        run = await _leave_early(client, place, {**body, "on_disconnect": "cancel"}, replica)
    await _is_cancelled(replica, run)


async def _leave_early(client: httpx.AsyncClient, path: str, body: Any, replica: Replica) -> str:
    """A waiting answer has no bytes for long: its head is enough."""
    async with client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        place: str = answer.headers["content-location"]

        async def is_running() -> bool:
            return await _status(replica, place) in ("running", "success")  # unless the machine is late

        await eventually(is_running)
        return place


async def test_a_run_goes_on_without_its_client(url: str, replica: Replica, sdk: Clients) -> None:
    thread = await sdk(url).threads.create()
    body = {"assistant_id": "agent", "input": {"count": 20, "pause": 0.02}}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        place = await _leave_early(client, f"/threads/{thread['thread_id']}/runs/stream", body, replica)
        assert (await client.get(f"{place}/join")).json()["total"] == 20
    assert await _status(replica, place) == "success"


@pytest.mark.parametrize("what", ["stream", "join"])
async def test_a_reader_may_take_the_run_with_it(url: str, replica: Replica, sdk: Clients, what: str) -> None:
    thread_id, run_id = await started(sdk(url))
    place = f"/threads/{thread_id}/runs/{run_id}"
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        async with client.stream("GET", f"{place}/{what}") as first:
            assert first.status_code == 200
        assert await _status(replica, place) == "running"
        async with client.stream("GET", f"{place}/{what}?cancel_on_disconnect=1") as second:
            assert second.status_code == 200
    await _is_cancelled(replica, place)


async def test_a_reader_at_another_replica_may_take_the_run_with_it(shared: dict[str, Any], sdk: Clients) -> None:
    async with two_replicas(shared) as (here, there):
        client = sdk(here, "u")
        thread_id, run_id = await started(client)
        place = f"/threads/{thread_id}/runs/{run_id}/stream?cancel_on_disconnect=1"
        async with (
            httpx.AsyncClient(base_url=there, headers={"x-user": "u"}, timeout=60) as http,
            http.stream("GET", place) as answer,
        ):
            assert answer.status_code == 200
        await status_of(client, thread_id, run_id, "interrupted")
