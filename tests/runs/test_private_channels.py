"""What a run notes for itself alone does not reach its readers."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest
from langgraph.channels import UntrackedValue
from langgraph.graph import END, START, StateGraph

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.middleware import ThreadOwnershipMiddleware
from deerflow_replica.runs import stream_run
from deerflow_replica.stream import InMemoryStreamBridge, StreamEvent
from deerflow_replica.threads import InMemoryThreadMap
from runs.graphs import agent

pytestmark = pytest.mark.anyio


class Public(TypedDict, total=False):
    shown: str
    also: Annotated[str, UntrackedValue]


class Whole(Public, total=False):
    note: Annotated[str, UntrackedValue]


async def streamed(graph: Any, input: Any, **options: Any) -> list[StreamEvent]:
    async with InMemoryStreamBridge(queue_maxsize=1000) as bridge:
        await stream_run(graph, input, bridge=bridge, run_id="r", stream_mode=["values", "updates"], **options)
        return [item async for item in bridge.subscribe("r") if isinstance(item, StreamEvent) and item.id]


async def test_an_untracked_channel_outside_the_output_is_not_streamed() -> None:
    graph = StateGraph(Whole, output_schema=Public)
    graph.add_node("node", lambda state: {"shown": "s", "also": "a", "note": "n"})
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    events = await streamed(graph.compile(), {"shown": ""})
    assert [event.data for event in events if event.event == "updates"] == [{"node": {"shown": "s", "also": "a"}}]
    assert [event.data for event in events if event.event == "values"][-1] == {"shown": "s", "also": "a"}


async def test_the_mark_of_the_ownership_check_stays_in_the_run() -> None:
    async with InMemoryThreadMap() as threads:
        checked = agent("hi", middleware=[ThreadOwnershipMiddleware(threads)], context_schema=DeerFlowContext)
        context = DeerFlowContext(AppConfig(), thread_id="t", user_id="ann")
        events = await streamed(checked, {"messages": ["hello"]}, context=context)
        assert await threads.owner_of("t") == "ann"
    assert events[-1].event
    assert "thread_ownership" not in repr(events)
