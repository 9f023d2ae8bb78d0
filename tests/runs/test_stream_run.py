"""What a graph's run looks like on the stream, mode by mode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from deerflow_replica.config import AppConfig
from deerflow_replica.context import DeerFlowContext
from deerflow_replica.runs import RunResult, stream_run
from deerflow_replica.stream import END_SENTINEL, InMemoryStreamBridge, StreamBridge
from runs.graphs import State, agent, ask, fail, one, steps, two, wait_for_ever
from waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bridge() -> AsyncIterator[StreamBridge]:
    async with InMemoryStreamBridge(queue_maxsize=10_000) as bridge:
        yield bridge


async def events_of(bridge: StreamBridge, run_id: str = "r") -> list[tuple[str, Any]]:
    """The run's events without END, which must be there."""
    items = [item async for item in bridge.subscribe(run_id)]
    assert items.pop() is END_SENTINEL
    return [(item.event, item.data) for item in items]  # type: ignore[union-attr]  # a gap would fail here, too


async def run(bridge: StreamBridge, graph: Any, input: Any, **options: Any) -> tuple[RunResult, list[tuple[str, Any]]]:
    result = await stream_run(graph, input, bridge=bridge, run_id="r", **options)
    return result, await events_of(bridge)


def on_thread(thread_id: str = "t") -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id}}


async def test_metadata_comes_first_and_values_is_the_default(bridge: StreamBridge) -> None:
    result, events = await run(bridge, steps(one, two), {"log": ["in"]})
    assert events == [
        ("metadata", {"run_id": "r", "attempt": 1}),
        ("values", {"log": ["in"]}),
        ("values", {"log": ["in", "one"]}),
        ("values", {"log": ["in", "one", "two"]}),
    ]
    assert result == RunResult("r", "success", {"log": ["in", "one", "two"]})
    assert await bridge.end_reason("r") == "done"


async def test_updates_and_custom_under_their_own_names(bridge: StreamBridge) -> None:
    _, events = await run(bridge, steps(one, two), {}, stream_mode=["updates", "custom"])
    assert events[1:] == [
        ("custom", {"progress": 1}),
        ("updates", {"one": {"log": ["one"]}}),
        ("updates", {"two": {"log": ["two"]}}),
    ]


async def test_tasks(bridge: StreamBridge) -> None:
    _, events = await run(bridge, steps(one), {}, stream_mode="tasks")
    assert [event for event, _ in events] == ["metadata", "tasks", "tasks"]
    begun, done = events[1][1], events[2][1]
    assert (begun["name"], begun["triggers"]) == ("one", ["branch:to:one"])
    assert (done["id"], done["result"], done["error"]) == (begun["id"], {"log": ["one"]}, None)


async def test_checkpoints_are_named_by_ids_and_hold_no_objects_of_the_process(bridge: StreamBridge) -> None:
    graph = steps(one, checkpointer=InMemorySaver())
    _, events = await run(bridge, graph, {}, stream_mode="checkpoints", config=on_thread())
    shown = [data for event, data in events if event == "checkpoints"]
    assert [checkpoint["next"] for checkpoint in shown] == [["__start__"], ["one"], []]
    assert [checkpoint["parent_checkpoint"] for checkpoint in shown[1:]] == [c["checkpoint"] for c in shown[:-1]]
    assert set(shown[0]["checkpoint"]) == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    assert not [key for key in shown[0]["config"]["configurable"] if key.startswith("__")]


async def test_debug_wraps_tasks_and_checkpoints(bridge: StreamBridge) -> None:
    graph = steps(one, checkpointer=InMemorySaver())
    _, events = await run(bridge, graph, {}, stream_mode="debug", config=on_thread())
    assert {event for event, _ in events[1:]} == {"debug"}
    assert [data["type"] for _, data in events[1:]].count("task_result") == 1
    checkpoint = next(data for _, data in events[1:] if data["type"] == "checkpoint")
    assert checkpoint["payload"]["checkpoint"]["thread_id"] == "t"


async def test_messages_tuple_is_chunk_and_metadata(bridge: StreamBridge) -> None:
    _, events = await run(bridge, agent("hello world"), {"messages": [("user", "hi")]}, stream_mode="messages-tuple")
    assert {event for event, _ in events[1:]} == {"messages"}
    assert "".join(chunk["content"] for _, (chunk, _) in events[1:]) == "hello world"
    chunk, metadata = events[1][1]
    assert chunk["type"] == "AIMessageChunk"
    assert metadata["langgraph_node"] == "model"


async def test_messages_are_metadata_once_and_the_message_so_far(bridge: StreamBridge) -> None:
    _, events = await run(bridge, agent("hello world"), {"messages": [("user", "hi")]}, stream_mode="messages")
    names = [event for event, _ in events[1:]]
    assert names == ["messages/metadata", *["messages/partial"] * (len(names) - 1)]
    (message_id,) = events[1][1]
    assert events[1][1][message_id]["metadata"]["langgraph_node"] == "model"
    so_far = [data for event, data in events if event == "messages/partial"]
    assert list(dict.fromkeys(message["content"] for (message,) in so_far)) == ["hello", "hello ", "hello world"]
    assert {(message["type"], message["id"]) for (message,) in so_far} == {("ai", message_id)}


async def test_message_that_was_not_streamed_is_complete(bridge: StreamBridge) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather."""
        return f"sun in {city}"

    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Rome"}, "id": "c1"}])
    graph = agent(call, "fine", tools=[weather])
    _, events = await run(bridge, graph, {"messages": [("user", "hi")]}, stream_mode="messages")
    complete = [data for event, data in events if event == "messages/complete"]
    assert [(message["type"], message["content"]) for (message,) in complete] == [("tool", "sun in Rome")]


async def test_both_message_modes_give_tuples_only(bridge: StreamBridge) -> None:
    modes = ["messages", "messages-tuple"]
    _, events = await run(bridge, agent("hello"), {"messages": [("user", "hi")]}, stream_mode=modes)
    assert {event for event, _ in events[1:]} == {"messages"}


async def test_subgraph_namespaces_follow_a_bar_but_not_for_messages(bridge: StreamBridge) -> None:
    inner = agent("deep thought")

    async def outer(state: State) -> State:
        answer = await inner.ainvoke({"messages": [("user", "hi")]})
        return {"log": [answer["messages"][-1].text]}

    modes = ["updates", "messages"]
    _, events = await run(bridge, steps(outer), {}, stream_mode=modes, subgraphs=True)
    names = [event for event, _ in events]
    namespaced = [name for name in names if "|" in name]
    assert namespaced
    assert {name.partition("|")[0] for name in namespaced} == {"updates"}
    assert all(name.startswith("updates|outer:") for name in namespaced)
    assert "messages/partial" in names
    assert names[-1] == "updates"


async def test_without_subgraphs_nothing_of_them_is_sent(bridge: StreamBridge) -> None:
    inner = steps(one)

    async def outer(state: State) -> State:
        return {"log": (await inner.ainvoke({}))["log"]}

    _, events = await run(bridge, steps(outer), {}, stream_mode="updates")
    assert [event for event, _ in events] == ["metadata", "updates"]


async def test_interrupt_in_values_and_updates(bridge: StreamBridge) -> None:
    graph = steps(one, ask, checkpointer=InMemorySaver())
    result, events = await run(bridge, graph, {}, stream_mode=["values", "updates"], config=on_thread())
    (shown,) = [data["__interrupt__"] for event, data in events if event == "updates" and "__interrupt__" in data]
    assert [one["value"] for one in shown] == [{"question": "go on?"}]
    assert set(shown[0]) == {"value", "id"}
    assert events[-1] == ("values", {"log": ["one"], "__interrupt__": shown})
    assert (result.status, result.values) == ("interrupted", {"log": ["one"]})
    assert [one.value for one in result.interrupts] == [{"question": "go on?"}]
    assert await bridge.end_reason("r") == "done"


async def test_without_values_or_updates_interrupts_are_still_sent_and_nothing_else(bridge: StreamBridge) -> None:
    graph = steps(one, ask, checkpointer=InMemorySaver())
    _, events = await run(bridge, graph, {}, stream_mode="custom", config=on_thread())
    assert [event for event, _ in events] == ["metadata", "custom", "updates"]
    assert list(events[-1][1]) == ["__interrupt__"]


async def test_resumed_run_goes_on(bridge: StreamBridge) -> None:
    graph = steps(one, ask, checkpointer=InMemorySaver())
    await run(bridge, graph, {}, config=on_thread())
    await bridge.cleanup("r")
    result, _ = await run(bridge, graph, Command(resume="yes"), config=on_thread())
    assert (result.status, result.values["log"][-1]) == ("success", "answered yes")


async def test_stop_before_a_node_is_an_interrupted_run(bridge: StreamBridge) -> None:
    graph = steps(one, two, checkpointer=InMemorySaver())
    result, events = await run(bridge, graph, {}, config=on_thread(), interrupt_before=["two"], durability="sync")
    assert (result.status, result.values, result.interrupts) == ("interrupted", {"log": ["one"]}, ())
    assert events[-1] == ("values", {"log": ["one"]})


async def test_graph_that_fails_ends_with_one_error(bridge: StreamBridge) -> None:
    with pytest.raises(ValueError, match="no such luck"):
        await stream_run(steps(one, fail), {}, bridge=bridge, run_id="r")
    events = await events_of(bridge)
    assert [event for event, _ in events].count("error") == 1
    assert events[-1] == ("error", {"error": "ValueError", "message": "no such luck"})
    assert await bridge.end_reason("r") == "error"


async def test_data_without_json_form_fails_the_run_visibly(bridge: StreamBridge) -> None:
    def odd(state: State) -> State:
        return {"log": [object()]}  # type: ignore[list-item]  # that is the point

    with pytest.raises(TypeError):
        await stream_run(steps(odd), {}, bridge=bridge, run_id="r")
    assert (await events_of(bridge))[-1][1]["error"] == "TypeError"


async def test_cancelled_run_ends_without_error(bridge: StreamBridge) -> None:
    task = asyncio.create_task(stream_run(steps(one, wait_for_ever), {}, bridge=bridge, run_id="r"))
    await eventually(lambda: bridge.stats().published >= 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "error" not in [event for event, _ in await events_of(bridge)]
    assert await bridge.end_reason("r") == "cancelled"


@pytest.mark.parametrize("mode", ["events", "message", "", ["values", "end"]])
async def test_unknown_mode_publishes_nothing(bridge: StreamBridge, mode: Any) -> None:
    with pytest.raises(ValueError, match="stream_mode"):
        await stream_run(steps(one), {}, bridge=bridge, run_id="r", stream_mode=mode)
    assert not await bridge.stream_exists("r")


async def test_bridge_that_is_closed_does_not_hide_the_graphs_error(bridge: StreamBridge) -> None:
    async def close_and_fail(state: State) -> State:
        await bridge.close()
        raise ValueError("no such luck")

    with pytest.raises(ValueError, match="no such luck"):
        await stream_run(steps(close_and_fail), {}, bridge=bridge, run_id="r", stream_mode="custom")


async def test_context_reaches_the_graph(bridge: StreamBridge) -> None:
    from langchain.agents.middleware import AgentMiddleware
    from langgraph.runtime import Runtime

    seen: list[Any] = []

    class Seeing(AgentMiddleware[Any, DeerFlowContext]):
        def before_agent(self, state: Any, runtime: Runtime[DeerFlowContext]) -> None:
            seen.append(runtime.context)

    context = DeerFlowContext(AppConfig(), "t", user_id="u")
    graph = agent("hello", middleware=[Seeing()], context_schema=DeerFlowContext)
    await run(bridge, graph, {"messages": [("user", "hi")]}, context=context)
    assert seen == [context]
