"""States of a thread, read and made by hand, as the official SDK and `RemoteGraph` do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypedDict
from uuid import uuid4

import httpx
import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import APIStatusError

from deerflow_replica.replica import Replica
from gateway.serving import official
from gateway.threads_of_talk import answered, asked, sdk_of, talking_app

pytestmark = pytest.mark.anyio

UNKNOWN = "1f0c0ffe-0000-6000-8000-000000000000"


@pytest.fixture
async def sdk(replica: Replica) -> AsyncIterator[LangGraphClient]:
    async with official(talking_app(replica)) as client:
        yield client


@pytest.fixture
def client(sdk: LangGraphClient) -> httpx.AsyncClient:
    return sdk.http.client


async def test_a_thread_without_runs_has_an_empty_state(sdk: LangGraphClient) -> None:
    thread_id = (await sdk.threads.create())["thread_id"]
    here: Any = {"thread_id": thread_id}
    for state in (
        await sdk.threads.get_state(thread_id),
        await sdk.threads.get_state(thread_id, subgraphs=True),
        await sdk.threads.get_state(thread_id, checkpoint=here),
    ):
        assert (state["values"], list(state["next"]), list(state["tasks"])) == ({}, [], [])
        assert state["checkpoint"] == {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": None}


async def test_a_question_in_a_subgraph_is_in_the_state(sdk: LangGraphClient) -> None:
    thread_id = await asked(sdk)
    state: Any = await sdk.threads.get_state(thread_id)
    assert state["values"] == {"log": ["hi", "planned", "looked"]}
    assert state["next"] == ["talk"]
    assert [stop["value"] for stop in state["interrupts"]] == ["who?"]
    assert state["checkpoint_id"] == state["checkpoint"]["checkpoint_id"]
    assert state["parent_checkpoint_id"] == state["parent_checkpoint"]["checkpoint_id"]
    tasks = {task["name"]: task for task in state["tasks"]}
    assert tasks["look"]["result"] == {"log": ["looked"]}
    assert (tasks["talk"]["interrupts"], tasks["talk"]["state"]) == (state["interrupts"], None)
    assert tasks["talk"]["checkpoint"]["checkpoint_ns"] == f"talk:{tasks['talk']['id']}"

    inner: Any = await sdk.threads.get_state(thread_id, checkpoint=tasks["talk"]["checkpoint"])
    assert (inner["next"], inner["values"]) == (["ask"], {"log": ["hi", "planned"]})
    deep: Any = await sdk.threads.get_state(thread_id, subgraphs=True)
    [nested] = [task["state"] for task in deep["tasks"] if task["name"] == "talk"]
    assert (nested["next"], nested["values"]) == (inner["next"], inner["values"])
    assert nested["checkpoint"]["checkpoint_ns"] == inner["checkpoint"]["checkpoint_ns"]


async def test_a_state_is_found_by_its_checkpoint(sdk: LangGraphClient) -> None:
    thread_id = await asked(sdk)
    await answered(sdk, thread_id, "Ann", "for fun")
    history: Any = await sdk.threads.get_history(thread_id)
    assert len(history) > 4
    for state in history:
        assert await sdk.threads.get_state(thread_id, checkpoint_id=state["checkpoint_id"]) == state
        assert await sdk.threads.get_state(thread_id, checkpoint=state["checkpoint"]) == state


async def test_a_checkpoint_that_is_not_there_is_404(sdk: LangGraphClient, client: httpx.AsyncClient) -> None:
    thread_id, other = await asked(sdk), await asked(sdk)
    foreign: Any = await sdk.threads.get_state(other)
    empty = (await sdk.threads.create())["thread_id"]
    for thread, checkpoint_id in ((thread_id, UNKNOWN), (thread_id, foreign["checkpoint_id"]), (empty, UNKNOWN)):
        place = f"/threads/{thread}/state"
        named = {"checkpoint": {**foreign["checkpoint"], "checkpoint_id": checkpoint_id}}
        for answer in (
            await client.get(f"{place}/{checkpoint_id}"),
            await client.post(f"{place}/checkpoint", json=named),
        ):
            assert (answer.status_code, answer.json()) == (404, {"detail": "Checkpoint not found"})
    before = await sdk.threads.get_history(thread_id)
    for body in ({"checkpoint_id": UNKNOWN}, {"checkpoint": foreign["checkpoint"]}):
        answer = await client.post(f"/threads/{thread_id}/state", json={"values": {"log": ["x"]}, **body})
        assert answer.status_code == 404
    assert await sdk.threads.get_history(thread_id) == before


@pytest.mark.parametrize(
    "checkpoint", [7, "text", {"checkpoint_id": 7}, {"checkpoint_ns": "\0"}, {"checkpoint_map": {"": 7}}]
)
async def test_what_names_no_checkpoint_is_422(
    sdk: LangGraphClient, client: httpx.AsyncClient, checkpoint: Any
) -> None:
    thread_id = await asked(sdk)
    for path in ("state", "state/checkpoint", "history"):
        answer = await client.post(f"/threads/{thread_id}/{path}", json={"checkpoint": checkpoint})
        assert answer.status_code == 422
    assert (await client.get(f"/threads/{thread_id}/state/%00")).status_code == 422


async def test_a_state_made_by_hand_is_the_new_head_and_the_row_follows(sdk: LangGraphClient) -> None:
    thread_id = await asked(sdk)
    await answered(sdk, thread_id, "Ann", "for fun")
    before: Any = await sdk.threads.get_state(thread_id)
    made: Any = await sdk.threads.update_state(thread_id, {"log": ["by hand"]})
    after: Any = await sdk.threads.get_state(thread_id)
    assert made["checkpoint"] == after["checkpoint"]
    assert made["checkpoint_id"] == after["checkpoint_id"]
    assert made["configurable"]["thread_id"] == thread_id
    assert after["parent_checkpoint"] == before["checkpoint"]
    assert after["values"]["log"] == [*before["values"]["log"], "by hand"]
    assert after["metadata"]["source"] == "update"
    assert "run_id" not in after["metadata"]
    thread: Any = await sdk.threads.get(thread_id)
    assert (thread["values"], thread["status"]) == (after["values"], "idle")
    assert thread["state_updated_at"] > before["created_at"]


async def test_a_state_as_of_a_node_says_what_comes_next(sdk: LangGraphClient) -> None:
    thread_id = await asked(sdk)
    await sdk.threads.update_state(thread_id, {"log": ["as planned"]}, as_node="plan")
    thread: Any = await sdk.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    assert thread["interrupts"] == {}
    state: Any = await sdk.threads.get_state(thread_id)
    assert set(state["next"]) == {"look", "talk"}
    await sdk.threads.update_state(thread_id, None, as_node=END)
    assert (await sdk.threads.get(thread_id))["status"] == "idle"
    state = await sdk.threads.get_state(thread_id)
    assert (state["next"], state["interrupts"]) == ([], [])


async def test_a_state_made_on_an_earlier_one_forks(sdk: LangGraphClient) -> None:
    thread_id = await asked(sdk)
    await answered(sdk, thread_id, "Ann", "for fun")
    history: Any = await sdk.threads.get_history(thread_id)
    [early] = [state for state in history if state["next"] == ["plan"]]
    for named in ({"checkpoint": early["checkpoint"]}, {"checkpoint_id": early["checkpoint_id"]}):
        await sdk.threads.update_state(thread_id, {"log": ["other plan"]}, as_node="plan", **named)
        head: Any = await sdk.threads.get_state(thread_id)
        assert head["values"]["log"] == ["hi", "other plan"]
        assert head["parent_checkpoint_id"] == early["checkpoint_id"]


async def test_a_state_of_a_subgraph_is_made_by_hand(sdk: LangGraphClient) -> None:
    thread_id = await asked(sdk)
    state: Any = await sdk.threads.get_state(thread_id)
    [place] = [task["checkpoint"] for task in state["tasks"] if task["name"] == "talk"]
    await sdk.threads.update_state(thread_id, {"log": ["said by hand"]}, as_node="ask", checkpoint=place)
    inner: Any = await sdk.threads.get_state(thread_id, checkpoint=place)
    assert inner["values"]["log"][-1] == "said by hand"


async def test_a_thread_that_is_busy_keeps_its_state(sdk: LangGraphClient) -> None:
    thread_id = (await sdk.threads.create())["thread_id"]
    run = await sdk.runs.create(thread_id, "counting", input={"count": 100, "pause": 1})
    with pytest.raises(APIStatusError) as refused:
        await sdk.threads.update_state(thread_id, {"total": 7})
    assert refused.value.response.status_code == 409
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    await sdk.threads.update_state(thread_id, {"total": 7}, as_node="count")
    state: Any = await sdk.threads.get_state(thread_id)
    assert state["values"]["total"] == 7


async def test_a_thread_needs_a_graph_to_have_a_state(sdk: LangGraphClient) -> None:
    thread_id = (await sdk.threads.create())["thread_id"]
    with pytest.raises(APIStatusError) as refused:
        await sdk.threads.update_state(thread_id, {"log": ["x"]})
    assert refused.value.response.status_code == 400
    named = (await sdk.threads.create(graph_id="agent"))["thread_id"]
    await sdk.threads.update_state(named, {"log": ["first"]}, as_node="plan")
    thread: Any = await sdk.threads.get(named)
    assert (thread["values"], thread["status"]) == ({"log": ["first"]}, "interrupted")


@pytest.mark.parametrize(
    "body",
    [
        {"values": {"log": ["x"]}, "as_node": "nobody"},
        {"values": {"log": ["x"]}, "as_node": 7},
        {"values": {"log": 7}, "as_node": "plan"},
        {"values": {"log": 7}, "as_node": "talk"},
        {"values": "text", "as_node": "plan"},
        {"values": None, "as_node": "__copy__", "checkpoint": {"checkpoint_ns": "nobody:1"}},
        {"values": {"log": ["x"]}, "checkpoint": {"checkpoint_ns": "nobody:1"}},
    ],
)
async def test_a_state_that_the_graph_refuses_is_422(
    sdk: LangGraphClient, client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    thread_id = await asked(sdk)
    before, head = await sdk.threads.get_history(thread_id), await sdk.threads.get_state(thread_id)
    assert (await client.post(f"/threads/{thread_id}/state", json=body)).status_code == 422
    assert await sdk.threads.get_history(thread_id) == before
    assert await sdk.threads.get_state(thread_id) == head


async def test_only_what_is_selected(sdk: LangGraphClient, client: httpx.AsyncClient) -> None:
    thread_id = await asked(sdk)
    for path in ("state", "history"):
        answer = (await client.get(f"/threads/{thread_id}/{path}?select=next&select=values.log")).json()
        state = answer[0] if isinstance(answer, list) else answer
        assert set(state) == {"next", "values"}
        assert set(state["values"]) == {"log"}
    body = {"select": ["metadata"], "checkpoint": {"thread_id": thread_id}}
    assert set((await client.post(f"/threads/{thread_id}/state/checkpoint", json=body)).json()) == {"metadata"}


async def test_a_state_without_a_json_form_is_told(replica: Replica) -> None:
    class Odd(TypedDict, total=False):
        value: Any

    builder = StateGraph(Odd)
    builder.add_node("make", lambda state: {"value": {(1, 2): "a pair"}})
    builder.add_edge(START, "make")
    builder.add_edge("make", END)
    sdk = sdk_of(talking_app(replica, odd=builder.compile()))
    thread_id = (await sdk.threads.create())["thread_id"]
    await sdk.runs.wait(thread_id, "odd", input={"value": 1}, raise_error=False)
    for ask in (sdk.threads.get_state, sdk.threads.get_history):
        with pytest.raises(APIStatusError) as refused:
            await ask(thread_id)
        assert refused.value.response.status_code == 422
        assert "no JSON form" in refused.value.response.text
    await sdk.threads.update_state(thread_id, {"value": 2}, as_node="make")
    state: Any = await sdk.threads.get_state(thread_id)
    assert state["values"] == {"value": 2}


async def test_a_large_state_comes_whole(sdk: LangGraphClient) -> None:
    thread_id = await asked(sdk)
    large = "x" * 4_000_000
    await sdk.threads.update_state(thread_id, {"log": [large]}, as_node="done")
    state: Any = await sdk.threads.get_state(thread_id)
    assert state["values"]["log"][-1] == large


async def test_who_made_a_state_is_said_by_the_server(replica: Replica) -> None:
    app = talking_app(replica, owned=True)
    alice, mallory = sdk_of(app, "alice"), sdk_of(app, "mallory")
    thread_id, other = await asked(alice), await asked(mallory)
    foreign: Any = await mallory.threads.get_state(other)
    sneaky: Any = {**(await alice.threads.get_state(thread_id))["checkpoint"], "thread_id": other}
    sneaky |= {"__pregel_checkpointer": 1, "user_id": "mallory", "run_id": "r"}
    await alice.threads.update_state(thread_id, {"log": ["mine"]}, as_node="done", checkpoint=sneaky)
    made: Any = await alice.threads.get_state(thread_id)
    assert made["checkpoint"]["thread_id"] == thread_id
    assert made["metadata"]["user_id"] == "alice"
    assert made["metadata"]["graph_id"] == "agent"
    assert "run_id" not in made["metadata"]
    assert await mallory.threads.get_state(other) == foreign


async def test_a_thread_that_was_only_claimed_gets_its_row(replica: Replica) -> None:
    thread_id = str(uuid4())
    await replica.threads.claim(thread_id, "alice", metadata={"graph_id": "agent"})
    alice = sdk_of(talking_app(replica, owned=True), "alice")
    await alice.threads.update_state(thread_id, {"log": ["first"]}, as_node="done")
    thread: Any = await alice.threads.get(thread_id)
    assert (thread["values"], thread["status"]) == ({"log": ["first"]}, "idle")
    await alice.threads.update_state(thread_id, {"log": ["planned"]}, as_node="plan")
    assert [found["thread_id"] for found in await alice.threads.search(status="interrupted")] == [thread_id]


async def test_a_remote_graph_sees_what_a_local_one_does(sdk: LangGraphClient) -> None:
    remote = RemoteGraph("agent", client=sdk)
    config: Any = {"configurable": {"thread_id": (await sdk.threads.create())["thread_id"]}}
    assert (await remote.aget_state(config)).values == {}
    await remote.ainvoke({"log": ["hi"]}, config)
    stopped = await remote.aget_state(config, subgraphs=True)
    assert [stop.value for stop in stopped.interrupts] == ["who?"]
    [nested] = [task.state for task in stopped.tasks if task.name == "talk"]
    assert nested is not None
    assert nested.next == ("ask",)  # type: ignore[union-attr]  # with `subgraphs` it is a state
    await remote.ainvoke(Command(resume="Ann"), config)
    values = await remote.ainvoke(Command(resume="for fun"), config)
    assert values["log"][-1] == "done"

    history = [state async for state in remote.aget_state_history(config, limit=3)]
    assert len(history) == 3
    earlier = [state async for state in remote.aget_state_history(config, before=history[0].config, limit=2)]
    assert earlier == history[1:]
    made = await remote.aupdate_state(config, {"log": ["by hand"]}, as_node="done")
    assert (await remote.aget_state(made)).values["log"][-1] == "by hand"
    assert (await remote.aget_state(history[1].config)).values == history[1].values


async def test_states_made_at_once_are_all_kept(sdk: LangGraphClient) -> None:
    thread_id = (await sdk.threads.create(graph_id="agent"))["thread_id"]
    await asyncio.gather(*(sdk.threads.update_state(thread_id, {"log": [str(n)]}, as_node="done") for n in range(5)))
    history: Any = await sdk.threads.get_history(thread_id)
    assert len(history) == 5


async def test_a_thread_that_is_deleted_meanwhile_leaves_nothing(replica: Replica) -> None:
    begun, deleted = asyncio.Event(), asyncio.Event()

    async def to_the_end(state: Any) -> str:
        begun.set()
        await deleted.wait()
        return END

    class Plain(TypedDict, total=False):
        value: int

    builder = StateGraph(Plain)
    builder.add_node("only", lambda state: state)
    builder.add_edge(START, "only")
    builder.add_conditional_edges("only", to_the_end, [END])
    sdk = sdk_of(talking_app(replica, slow=builder.compile()))
    thread_id = (await sdk.threads.create(graph_id="slow"))["thread_id"]
    update = asyncio.ensure_future(sdk.threads.update_state(thread_id, {"value": 1}, as_node="only"))
    await begun.wait()
    await sdk.threads.delete(thread_id)
    deleted.set()
    with pytest.raises(APIStatusError) as refused:
        await update
    assert refused.value.response.status_code == 404
    assert await replica.checkpointer.aget_tuple({"configurable": {"thread_id": thread_id}}) is None
    with pytest.raises(APIStatusError):
        await sdk.threads.get(thread_id)
