"""Runs without a thread: on one of their own, which nobody finds and which does not stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.testing._contract import for_one_of
from gateway.calling import client_of
from gateway.serving import IN_MEMORY, by_header, in_process
from scripted_models import scripted
from waiting import eventually

pytestmark = pytest.mark.anyio

COUNTED = {"assistant_id": "agent", "input": {"count": 2}}


@pytest.fixture(params=["u", None])
def user(request: pytest.FixtureRequest) -> str | None:
    return request.param  # type: ignore[no-any-return]  # pytest types it as Any


@pytest.fixture
async def client(replica: Replica, graphs: dict[str, Any], user: str | None) -> AsyncIterator[LangGraphClient]:
    async with client_of(_app(replica, graphs, user), user) as opened:
        yield opened


def _app(replica: Replica, graphs: dict[str, Any], user: str | None) -> Any:
    return create_app(replica, graphs, authenticate=by_header if user else None)


async def _is_found_nowhere(client: LangGraphClient) -> bool:
    orders: list[Any] = ["created_at", "updated_at", "thread_id", "status"]
    found = [await client.threads.search(sort_by=order) for order in orders]
    return not any(found) and await client.threads.count() == 0


async def test_wait_gives_the_values_and_leaves_no_thread_to_be_found(client: LangGraphClient) -> None:
    assert (await client.runs.wait(None, "agent", input={"count": 2}))["total"] == 2  # type: ignore[call-overload]  # the SDK types values as a list too
    assert await _is_found_nowhere(client)


async def test_a_failure_is_the_answer(client: LangGraphClient) -> None:
    answer = await client.runs.wait(None, "agent", input={"count": 1, "fail": "boom"}, raise_error=False)
    assert answer == {"__error__": {"error": "RuntimeError", "message": "boom"}}


async def test_a_stream_names_its_run_which_stays_readable(client: LangGraphClient) -> None:
    made: list[Any] = []
    stream = client.runs.stream(None, "agent", input={"count": 2}, stream_mode=["custom"], on_run_created=made.append)
    parts = [part async for part in stream]
    assert [part.event for part in parts] == ["metadata", "custom", "custom"]
    [created] = made
    run = await client.runs.get(created["thread_id"], created["run_id"])
    assert run["status"] == "success"
    assert (await client.runs.join(created["thread_id"], created["run_id"]))["total"] == 2
    again = client.runs.join_stream(created["thread_id"], created["run_id"], last_event_id="-1")
    assert [part.data async for part in again] == [part.data for part in parts]
    assert await _is_found_nowhere(client)


async def test_a_run_in_the_background_is_not_found_while_it_runs(client: LangGraphClient) -> None:
    run = await client.runs.create(None, "agent", input={"count": 400, "pause": 0.05})
    assert await _is_found_nowhere(client)
    assert [one["run_id"] for one in await client.runs.list(run["thread_id"])] == [run["run_id"]]
    await client.runs.cancel(run["thread_id"], run["run_id"], wait=True)
    assert (await client.runs.get(run["thread_id"], run["run_id"]))["status"] == "interrupted"


@pytest.mark.parametrize("path", ["/runs", "/runs/stream", "/runs/wait"])
async def test_every_answer_says_where_the_run_is(
    replica: Replica, graphs: dict[str, Any], user: str | None, path: str
) -> None:
    async with in_process(_app(replica, graphs, user), user) as http:
        answer = await http.post(path, json=COUNTED)
        place = answer.headers["content-location"]
        assert (await http.get(place)).json()["status"] in ("pending", "running", "success")
        assert answer.headers["location"].startswith(place)
        assert (await http.get(f"{place}/join")).json()["total"] == 2


@pytest.mark.parametrize("on_completion", ["delete", "keep", None])
async def test_the_thread_goes_after_the_retention_unless_it_is_to_be_kept(
    graphs: dict[str, Any], user: str | None, on_completion: Any
) -> None:
    async def stays_until_then(seconds: float) -> bool:
        try:
            await _goes_or_stays(graphs, user, on_completion, seconds)
        except NotFoundError:  # it was joined too late
            return False
        return True

    assert await for_one_of((0.2, 5.0), stays_until_then)


async def _goes_or_stays(graphs: dict[str, Any], user: str | None, on_completion: Any, seconds: float) -> None:
    config = AppConfig.from_mapping({**IN_MEMORY, "gateway": {"retention_seconds": seconds, "lease_seconds": 1}})
    async with open_replica(config) as replica, client_of(_app(replica, graphs, user), user) as client:
        run = await client.runs.create(None, "agent", input={"count": 1}, on_completion=on_completion)
        thread_id = run["thread_id"]
        assert (await client.runs.join(thread_id, run["run_id"]))["total"] == 1
        if on_completion == "keep":
            await client.runs.wait(None, "agent", input={"count": 1})
            assert (await client.threads.get_state(thread_id))["values"]["total"] == 1  # type: ignore[call-overload]  # as above
            assert (await client.runs.wait(thread_id, "agent", input={"count": 3}))["total"] == 3  # type: ignore[call-overload]  # as above
            assert await _is_found_nowhere(client)
            return

        async def is_gone() -> bool:
            left = [saved async for saved in replica.checkpointer.alist({"configurable": {"thread_id": thread_id}})]
            return not left and await replica.runs.get_thread(thread_id) is None

        await eventually(is_gone, what="the end of the hidden thread")
        assert await replica.runs.get(run["run_id"]) is None


async def test_a_checkpoint_of_no_thread_is_refused(
    client: LangGraphClient, replica: Replica, user: str | None
) -> None:
    unknown = {**COUNTED, "checkpoint_id": "1ef4f797-8335-6428-8001-8a1503f9b875"}
    answer = await client.http.client.post("/runs/wait", json=unknown)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Checkpoint not found"})
    assert await replica.runs.unfinished(user_id=user) == ()


async def test_an_agent_that_checks_its_thread_makes_it_no_more_visible(replica: Replica) -> None:
    def agent(replica: Replica) -> Any:
        model = scripted(AIMessage("hi"), AIMessage("there"), AIMessage("you"))
        return create_agent(model, [], middleware=replica.middleware(), context_schema=DeerFlowContext)

    async with client_of(_app(replica, {"agent": agent}, "u"), "u") as client:
        question: Any = {"messages": [{"role": "user", "content": "hello"}]}
        run = await client.runs.create(None, "agent", input=question, on_completion="keep")
        answer: Any = await client.runs.join(run["thread_id"], run["run_id"])
        assert answer["messages"][-1]["content"] == "hi"
        again: Any = await client.runs.wait(run["thread_id"], "agent", input=question)
        assert again["messages"][-1]["content"] == "there"
        assert await _is_found_nowhere(client)
        assert await replica.threads.count("u") == 0
        thread_id = str((await client.threads.create())["thread_id"])
        await client.runs.wait(thread_id, "agent", input=question)
        assert [thread["thread_id"] for thread in await client.threads.search()] == [thread_id]


async def test_a_replica_that_is_leaving_begins_none(replica: Replica, graphs: dict[str, Any]) -> None:
    app = create_app(replica, graphs)
    await app.state.gateway.drain()
    async with in_process(app) as http:
        for path in ("/runs", "/runs/stream", "/runs/wait"):
            answer = await http.post(path, json=COUNTED)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert await replica.runs.unfinished(user_id=None) == ()
