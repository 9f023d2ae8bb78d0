"""LangGraph's own `RemoteGraph` over a replica: a graph elsewhere, used like one that is here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph.types import Command

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway.graphs import CountState
from gateway.serving import Clients, by_header, served

pytestmark = pytest.mark.anyio


@pytest.fixture
async def url(replica: Replica, graphs: dict[str, Any]) -> AsyncIterator[str]:
    async with served(create_app(replica, graphs, authenticate=by_header)) as url:
        yield url


def remote(name: str, url: str, sdk: Clients) -> RemoteGraph:
    return RemoteGraph(name, client=sdk(url, "ada"))


def on_thread() -> RunnableConfig:
    return {"configurable": {"thread_id": str(uuid4())}}


async def test_it_is_invoked_and_streamed(url: str, sdk: Clients) -> None:
    graph = remote("agent", url, sdk)
    assert (await graph.ainvoke({"count": 3}))["total"] == 3
    config = on_thread()
    stream: Any = graph.astream({"count": 2}, config, stream_mode=["custom", "updates"])
    assert [part[:2] async for part in stream] == [
        ("custom", {"n": 0}),
        ("custom", {"n": 1}),
        ("updates", {"count": {"total": 2}}),
    ]
    state = await graph.aget_state(config)
    assert (state.values["total"], state.next) == (2, ())
    await graph.aupdate_state(config, {"total": 5}, as_node="count")
    assert [past.values.get("total") async for past in graph.aget_state_history(config)][:2] == [5, 2]


async def test_what_fails_there_fails_here(url: str, sdk: Clients) -> None:
    with pytest.raises(RemoteException, match="no luck"):
        await remote("agent", url, sdk).ainvoke({"count": 1, "fail": "no luck"}, on_thread())


async def test_its_interrupt_is_resumed(url: str, sdk: Clients) -> None:
    graph, config = remote("asking", url, sdk), on_thread()
    asked = await graph.ainvoke({}, config)
    assert [interrupt["value"] for interrupt in asked["__interrupt__"]] == ["what?"]
    assert (await graph.ainvoke(Command(resume="that"), config))["answer"] == "that"


async def test_it_is_a_node_of_a_graph_that_is_here(url: str, sdk: Clients) -> None:
    builder = StateGraph(CountState)
    builder.add_node("there", remote("agent", url, sdk))
    builder.add_edge(START, "there")
    builder.add_edge("there", END)
    assert (await builder.compile().ainvoke({"count": 4}))["total"] == 4


async def test_it_can_be_drawn(url: str, sdk: Clients) -> None:
    drawn = await remote("agent", url, sdk).aget_graph()
    assert set(drawn.nodes) == {"__start__", "count", "__end__"}
