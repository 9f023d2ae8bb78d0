"""What an assistant says is what its runs begin with; what a run says itself wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.schema import Assistant

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import by_header, in_process, official
from waiting import eventually

pytestmark = pytest.mark.anyio


class SeenState(TypedDict, total=False):
    seen: dict[str, Any]


class Settings(TypedDict, total=False):
    model: dict[str, Any]
    words: list[str]


async def _look(state: SeenState, config: RunnableConfig, runtime: Runtime[Settings]) -> SeenState:
    told = {name: config.get(name) for name in ("metadata", "recursion_limit", "tags")}
    configurable = config.get("configurable", {})
    shown = {key: value for key, value in configurable.items() if not key.startswith("__")}
    return {"seen": {**told, "configurable": shown, "context": runtime.context}}


async def _look_for_agent(state: SeenState, runtime: Runtime[DeerFlowContext]) -> SeenState:
    return {"seen": {"agent_name": runtime.context.agent_name, "user_id": runtime.context.user_id}}


def _graph(node: Any, schema: Any) -> Any:
    builder: Any = StateGraph(SeenState, context_schema=schema)
    builder.add_node("look", node)
    builder.add_edge(START, "look")
    builder.add_edge("look", END)
    return builder.compile()


@pytest.fixture
def app(replica: Replica) -> Any:
    graphs = {"looking": _graph(_look, Settings), "deer": _graph(_look_for_agent, DeerFlowContext)}
    return create_app(replica, graphs, authenticate=by_header)


@pytest.fixture
async def client(app: Any) -> AsyncIterator[LangGraphClient]:
    async with official(app, "u") as client:
        yield client


async def _created(client: LangGraphClient, graph_id: str, config: Any = None, **more: Any) -> Assistant:
    return await client.assistants.create(graph_id, config, **more)


async def _seen(client: LangGraphClient, assistant_id: str, **said: Any) -> dict[str, Any]:
    thread = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread, assistant_id, input={}, **said)
    assert "seen" in values, values
    seen: dict[str, Any] = values["seen"]
    return seen


async def test_a_run_that_says_nothing_is_as_its_assistant(client: LangGraphClient) -> None:
    made = await _created(
        client,
        "looking",
        {"tags": ["t"], "recursion_limit": 7, "configurable": {"model": {"name": "m"}}},
        context={"words": ["a"]},
        metadata={"team": "x"},
    )
    seen = await _seen(client, made["assistant_id"])
    assert (seen["tags"], seen["recursion_limit"]) == (["t"], 7)
    assert seen["configurable"]["model"] == {"name": "m"}
    assert seen["context"] == {"words": ["a"]}
    assert seen["metadata"]["team"] == "x"


async def test_what_a_run_says_wins_at_every_depth(client: LangGraphClient) -> None:
    made = await _created(
        client,
        "looking",
        {"tags": ["t"], "recursion_limit": 7, "configurable": {"model": {"name": "m", "heat": 1}, "list": [1, 2]}},
        context={"model": {"name": "m", "heat": 1}, "words": ["a", "b"]},
        metadata={"team": {"name": "x", "size": 3}},
    )
    seen = await _seen(
        client,
        made["assistant_id"],
        config={"tags": [], "configurable": {"model": {"name": "n", "none": None}, "list": [3]}},
        context={"model": {"name": "n"}, "words": []},
        metadata={"team": {"name": "y"}, "own": 1},
    )
    assert (seen["tags"] or [], seen["recursion_limit"]) == ([], 7)
    assert seen["configurable"]["model"] == {"name": "n", "heat": 1, "none": None}
    assert seen["configurable"]["list"] == [3]
    assert seen["context"] == {"model": {"name": "n", "heat": 1}, "words": []}
    assert (seen["metadata"]["team"], seen["metadata"]["own"]) == ({"name": "y", "size": 3}, 1)


async def test_rows_carry_the_assistant(client: LangGraphClient) -> None:
    made = await _created(
        client, "looking", {"configurable": {"c": 1}}, context={"words": ["a"]}, metadata={"team": "x"}
    )
    thread = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread, made["assistant_id"], input={}, metadata={"own": 1})
    names = {"graph_id": "looking", "assistant_id": made["assistant_id"]}
    assert {name: values["seen"]["configurable"][name] for name in names} == names
    [run] = await client.runs.list(thread)
    assert run["assistant_id"] == made["assistant_id"]
    assert run["metadata"] == {"team": "x", "own": 1}
    kwargs: Any = dict(run)["kwargs"]
    assert (kwargs["config"]["configurable"], kwargs["context"]) == ({"c": 1}, {"words": ["a"]})
    assert dict((await client.threads.get(thread))["metadata"] or {}) == names
    state = await client.threads.get_state(thread)
    assert state["values"] == values


async def test_a_graphs_own_assistant_says_nothing(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread, "looking", input={})
    assert "created_by" not in values["seen"]["metadata"]
    [run] = await client.runs.list(thread)
    assert run["metadata"] == {}


async def test_a_change_is_for_runs_to_come(client: LangGraphClient) -> None:
    made = await _created(client, "looking", context={"words": ["old"]})
    assert (await _seen(client, made["assistant_id"]))["context"] == {"words": ["old"]}
    new: Any = {"words": ["new"]}
    await client.assistants.update(made["assistant_id"], context=new)
    assert (await _seen(client, made["assistant_id"]))["context"] == {"words": ["new"]}
    await client.assistants.update(made["assistant_id"], graph_id="deer", context={"agent_name": "scout"})
    assert await _seen(client, made["assistant_id"]) == {"agent_name": "scout", "user_id": "u"}


async def test_an_assistant_names_the_agent(client: LangGraphClient) -> None:
    made = await _created(client, "deer", context={"agent_name": "scout"})
    assert (await _seen(client, made["assistant_id"]))["agent_name"] == "scout"
    assert (await _seen(client, made["assistant_id"], context={"agent_name": "hunter"}))["agent_name"] == "hunter"


async def test_an_assistant_is_no_way_round_what_the_server_says(client: LangGraphClient) -> None:
    forged = {"thread_id": "x", "run_id": "x", "user_id": "alice", "assistant_id": "x", "graph_id": "x"}
    hidden = {"langgraph_auth_user_id": "alice", "__pregel_x": 1}
    made = await _created(client, "looking", {"configurable": {**forged, **hidden}}, metadata=forged)
    seen = await _seen(client, made["assistant_id"])
    assert (seen["configurable"]["user_id"], seen["metadata"]["user_id"]) == ("u", "u")
    assert seen["configurable"]["langgraph_auth_user_id"] == "u"
    for said in (seen["configurable"], seen["metadata"]):
        assert (said["assistant_id"], said["graph_id"]) == (made["assistant_id"], "looking")
        assert "x" not in (said["thread_id"], said["run_id"])


async def test_a_factory_gets_the_assistants_config(replica: Replica) -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def factory(config: Any) -> AsyncIterator[Any]:
        seen.append(config["configurable"])
        yield _graph(_look, Settings)

    async with official(create_app(replica, {"made": factory})) as client:
        made = await _created(client, "made", {"configurable": {"color": "red"}})
        await _seen(client, made["assistant_id"])
        await client.assistants.get_schemas(made["assistant_id"])
        for one in (seen[0], seen[-1]):  # between them the run's result was read
            assert (one["color"], one["assistant_id"]) == ("red", made["assistant_id"])
        assert "run_id" not in seen[-1]


async def test_threads_go_with_an_assistant_if_asked(app: Any, client: LangGraphClient) -> None:
    async def thread_of(user: LangGraphClient, assistant_id: str) -> str:
        thread_id = (await user.threads.create())["thread_id"]
        await user.runs.wait(thread_id, assistant_id, input={})
        return thread_id

    async with official(app, "other") as other, in_process(app, "u") as plain:
        stays = [await thread_of(other, "looking"), await thread_of(client, "looking")]
        for delete_threads in (False, True):
            assistant_id = (await _created(client, "looking"))["assistant_id"]
            threads = {await thread_of(client, assistant_id) for _ in range(3)}
            query = {"delete_threads": str(delete_threads).lower()}
            assert (await plain.delete(f"/assistants/{assistant_id}", params=query)).status_code == 204
            left = {thread["thread_id"] for thread in await client.threads.search(limit=100)}
            assert left & threads == (set() if delete_threads else threads)
            assert stays[1] in left
        assert [thread["thread_id"] for thread in await other.threads.search()] == stays[:1]


@pytest.mark.faults
async def test_a_run_waits_for_a_replica_longer_than_its_assistant_lives(
    shared: dict[str, Any],
) -> None:
    going_on = asyncio.Event()

    async def wait(state: SeenState) -> SeenState:
        await going_on.wait()
        return {}

    config = AppConfig.from_mapping(shared)
    graphs = {"waiting": _graph(wait, None), "looking": _graph(_look, Settings)}
    async with open_replica(config) as leaving, open_replica(config) as staying:
        apps = [create_app(replica, graphs, authenticate=by_header) for replica in (leaving, staying)]
        async with official(apps[0], "u") as first, official(apps[1], "u") as second:
            made = await _created(first, "looking", {"configurable": {"c": 1}}, context={"words": ["a"]})
            thread_id = (await first.threads.create())["thread_id"]
            await first.runs.create(thread_id, "waiting", input={})
            run = await first.runs.create(thread_id, made["assistant_id"], input={})
            await first.assistants.delete(made["assistant_id"])
            drain = asyncio.ensure_future(apps[0].state.gateway.drain())
            await eventually(lambda: staying._manager.executes(run["run_id"]), what="adoption")
            going_on.set()
            values: Any = await second.runs.join(thread_id, run["run_id"])
            await drain
    assert (values["seen"]["configurable"]["c"], values["seen"]["context"]) == (1, {"words": ["a"]})
    assert values["seen"]["configurable"]["assistant_id"] == made["assistant_id"]


async def test_an_assistant_whose_graph_is_not_served_runs_nothing(replica: Replica) -> None:
    graph = _graph(_look, Settings)
    async with in_process(create_app(replica, {"old": graph})) as client:
        made = (await client.post("/assistants", json={"graph_id": "old"})).json()
    async with in_process(create_app(replica, {"new": graph})) as client:
        place = f"/assistants/{made['assistant_id']}"
        assert (await client.get(place)).json() == made
        assert (await client.get(f"{place}/schemas")).status_code == 404
        thread = (await client.post("/threads", json={})).json()["thread_id"]
        answer = await client.post(f"/threads/{thread}/runs", json={"assistant_id": made["assistant_id"]})
        assert answer.status_code == 422
        assert "old" in answer.json()["detail"]
        assert (await client.patch(place, json={"graph_id": "new"})).json()["graph_id"] == "new"
        answer = await client.post(
            f"/threads/{thread}/runs/wait", json={"assistant_id": made["assistant_id"], "input": {}}
        )
        assert answer.json()["seen"]["configurable"]["graph_id"] == "new"
