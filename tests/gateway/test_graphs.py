"""What an app may be given to serve: graphs, and factories of every kind; and what a run's graph gets."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore

from deerflow_replica import AppConfig, DeerFlowContext, get_app_config
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.graphs import counting_graph
from gateway.serving import IN_MEMORY, by_header, in_process

pytestmark = pytest.mark.anyio


class SeenState(TypedDict, total=False):
    seen: dict[str, Any]


def _graph(node: Any, schema: Any = None, store: Any = None) -> Any:
    builder: Any = StateGraph(SeenState, context_schema=schema)
    builder.add_node("look", node)
    builder.add_edge(START, "look")
    builder.add_edge("look", END)
    return builder.compile(store=store)


async def _seen(replica: Replica, source: Any, *, user: str | None = None, **body: Any) -> Any:
    app = create_app(replica, {"agent": source}, authenticate=None if user is None else by_header)
    async with in_process(app, user) as client:
        thread_id = (await client.post("/threads", json={})).json()["thread_id"]
        answer = await client.post(
            f"/threads/{thread_id}/runs/wait", json={"assistant_id": "agent", "input": {}, **body}
        )
    assert answer.status_code == 200
    return answer.json().get("seen", answer.json())


async def test_factories_of_every_kind(replica: Replica) -> None:
    calls: list[str] = []

    def plain() -> Any:
        calls.append("plain")
        return counting_graph()

    def with_config(config: Any) -> Any:
        calls.append(config["configurable"]["color"])
        return counting_graph()

    async def waiting(config: Any) -> Any:
        return counting_graph()

    @asynccontextmanager
    async def entered(replica: Replica, config: Any) -> AsyncIterator[Any]:
        calls.append(replica.replica_id)
        yield counting_graph()
        calls.append("left")

    def once(replica: Replica) -> Any:
        calls.append("once")
        return counting_graph()

    sources: dict[str, Any] = {
        "plain": plain,
        "config": with_config,
        "waiting": waiting,
        "entered": entered,
        "once": once,
    }
    async with in_process(create_app(replica, sources)) as client:
        for name in (*sources, "once"):
            thread_id = (await client.post("/threads", json={})).json()["thread_id"]
            body = {"assistant_id": name, "input": {"count": 1}, "config": {"configurable": {"color": "red"}}}
            created = await client.post(f"/threads/{thread_id}/runs", json=body)
            run = created.headers["content-location"]
            assert (await client.get(f"{run}/stream", headers={"last-event-id": "0"})).status_code == 200
            assert (await client.get(run)).json()["status"] == "success"
    assert calls == ["plain", "red", replica.replica_id, "left", "once"]


async def test_a_factory_that_makes_no_graph_fails_its_run(replica: Replica) -> None:
    error = await _seen(replica, lambda: "no graph")
    assert error["__error__"]["error"] == "TypeError"
    assert "not a compiled graph" in error["__error__"]["message"]


async def test_our_context_schema_gets_the_replicas_context(replica: Replica) -> None:
    async def look(state: SeenState, runtime: Runtime[DeerFlowContext]) -> SeenState:
        context = runtime.context
        assert context.app_config is replica.config
        assert get_app_config() is replica.config
        return {"seen": {"user": context.user_id, "agent": context.agent_name, "run": context.run_id is not None}}

    seen = await _seen(
        replica, _graph(look, DeerFlowContext), user="alice", context={"agent_name": "researcher", "user_id": "mallory"}
    )
    assert seen == {"user": "alice", "agent": "researcher", "run": True}


async def test_a_subclass_of_it_too(replica: Replica) -> None:
    @dataclass(frozen=True)
    class OwnContext(DeerFlowContext):
        color: str = "blue"

    async def look(state: SeenState, runtime: Runtime[OwnContext]) -> SeenState:
        return {"seen": {"color": runtime.context.color, "user": runtime.context.user_id}}

    assert await _seen(replica, _graph(look, OwnContext), user="alice") == {"color": "blue", "user": "alice"}


async def test_another_schema_gets_the_bodys_context(replica: Replica) -> None:
    @dataclass
    class Other:
        color: str

    async def look(state: SeenState, runtime: Runtime[Other]) -> SeenState:
        return {"seen": {"color": runtime.context.color}}

    assert await _seen(replica, _graph(look, Other), context={"color": "red"}) == {"color": "red"}


async def test_the_replicas_store_unless_the_graph_brought_its_own(replica: Replica) -> None:
    own = InMemoryStore()
    stores: list[Any] = []

    async def look(state: SeenState, runtime: Runtime[None]) -> SeenState:
        stores.append(runtime.store)
        return {"seen": {}}

    await _seen(replica, _graph(look))
    await _seen(replica, _graph(look, store=own))
    assert stores == [replica.store, own]


async def test_a_shallow_stream_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    shallow = AppConfig.from_mapping({**IN_MEMORY, "stream_bridge": {"queue_maxsize": 256}})
    async with open_replica(shallow) as replica:
        with caplog.at_level(logging.WARNING, "deerflow_replica.gateway"):
            create_app(replica, {"agent": counting_graph()})
    assert [record.getMessage() for record in caplog.records] == [
        "stream_bridge.queue_maxsize is 256: a client that reconnects late meets a gap"
    ]
