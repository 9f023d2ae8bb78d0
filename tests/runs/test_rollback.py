"""Runs that interrupt others, and runs that are as if they had never been."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from deerflow_replica.runs.manager import RunManager
from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.runs.registry.sqlite import SqliteRunRegistry
from deerflow_replica.stream import InMemoryStreamBridge
from deerflow_replica.testing._contract import for_one_of
from runs.graphs import State, ask, one, steps, two, wait_for_ever
from runs.managing import became, events_of, history, managing, request
from waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bridge() -> AsyncIterator[InMemoryStreamBridge]:
    async with InMemoryStreamBridge() as bridge:
        yield bridge


@pytest.fixture(params=["inmemory", "sqlite"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunRegistry]:
    made = InMemoryRunRegistry() if request.param == "inmemory" else SqliteRunRegistry(tmp_path / "runs.db")
    async with made as registry:
        yield registry


@pytest.fixture
def saver() -> InMemorySaver:
    return InMemorySaver()


@pytest.fixture
async def manager(
    bridge: InMemoryStreamBridge, registry: RunRegistry, saver: InMemorySaver
) -> AsyncIterator[RunManager]:
    async with managing(bridge, registry, checkpointer=saver) as manager:
        yield manager


async def stopped_at(saver: InMemorySaver, node: str) -> None:
    """Until this node is all that is left to do."""
    branch = f"branch:to:{node}"

    async def is_next() -> bool:
        head = await saver.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
        return head is not None and branch in head.checkpoint["channel_values"]

    await eventually(is_next)


def long(saver: InMemorySaver) -> Any:
    """Leaves a checkpoint, then waits."""
    return steps(one, wait_for_ever, checkpointer=saver)


async def test_rolled_back_run_leaves_nothing(
    manager: RunManager, bridge: InMemoryStreamBridge, registry: RunRegistry, saver: InMemorySaver
) -> None:
    first = await manager.start(request(steps(one, two, checkpointer=saver), "first"))
    assert await first.wait() == "success"
    before, thread = await history(saver), await registry.get_thread("t")
    assert thread is not None
    second = await manager.start(request(long(saver), "second"))
    await stopped_at(saver, "wait_for_ever")
    assert len(await history(saver)) > len(before)
    assert await registry.cancel("second", action="rollback")
    assert await second.wait() == "interrupted"
    assert await history(saver) == before
    assert await registry.get("second") is None
    after = await registry.get_thread("t")
    assert after is not None
    assert replace(after, updated_at=thread.updated_at) == thread
    assert "error" not in await events_of(bridge, "second")
    assert await bridge.end_reason("second") == "cancelled"


async def test_rolled_back_answer_leaves_the_question_open(
    manager: RunManager, bridge: InMemoryStreamBridge, registry: RunRegistry, saver: InMemorySaver
) -> None:
    graph = steps(ask, wait_for_ever, checkpointer=saver)
    asked = await manager.start(request(graph, "asked"))
    assert await asked.wait() == "success"
    before, thread = await history(saver), await registry.get_thread("t")
    assert thread is not None
    assert thread.status == "interrupted"
    answered = await manager.start(request(graph, "answered", input=Command(resume="yes")))
    await stopped_at(saver, "wait_for_ever")
    await registry.cancel("answered", action="rollback")
    assert await answered.wait() == "interrupted"
    assert await history(saver) == before
    again = await manager.start(request(steps(ask, two, checkpointer=saver), "again", input=Command(resume="no")))
    assert await again.wait() == "success"
    assert (await graph.aget_state({"configurable": {"thread_id": "t"}})).values["log"][0] == "answered no"


async def test_rollback_that_nobody_hinted_is_not_overtaken_by_success(
    manager: RunManager, bridge: InMemoryStreamBridge, registry: RunRegistry, saver: InMemorySaver
) -> None:
    going_on = asyncio.Event()

    async def wait(state: State) -> State:
        await going_on.wait()
        return {"log": ["done"]}

    run = await manager.start(request(steps(one, wait, checkpointer=saver)))
    await stopped_at(saver, "wait")
    assert await registry._cancel("r", "rollback")
    going_on.set()
    async with asyncio.timeout(60):
        assert await run.wait() == "interrupted"
    assert await registry.get("r") is None
    assert await history(saver) == []


async def test_rollback_is_stronger_than_an_interrupt_that_came_before(
    manager: RunManager, bridge: InMemoryStreamBridge, registry: RunRegistry, saver: InMemorySaver
) -> None:
    run = await manager.start(request(long(saver)))
    await stopped_at(saver, "wait_for_ever")
    await asyncio.gather(registry.cancel("r"), registry.cancel("r", action="rollback"))
    assert await run.wait() == "interrupted"
    assert await registry.get("r") is None
    assert await history(saver) == []


async def test_waiting_run_is_rolled_back(manager: RunManager, registry: RunRegistry, saver: InMemorySaver) -> None:
    first = await manager.start(request(long(saver), "first"))
    second = await manager.start(request(long(saver), "second"))
    assert await registry.cancel("second", action="rollback")
    async with asyncio.timeout(60):
        assert await second.wait() == "interrupted"
    assert await registry.get("second") is None
    assert first.status == "running"


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_strategy_ends_what_runs_and_what_waits(
    manager: RunManager, bridge: InMemoryStreamBridge, registry: RunRegistry, saver: InMemorySaver, strategy: Any
) -> None:
    first = await manager.start(request(long(saver), "first"))
    await stopped_at(saver, "wait_for_ever")
    second = await manager.start(request(long(saver), "second"))
    third = await manager.start(request(steps(two, checkpointer=saver), "third", multitask_strategy=strategy))
    async with asyncio.timeout(60):
        assert [await run.wait() for run in (first, second, third)] == ["interrupted", "interrupted", "success"]
    left = [record.run_id for record in await registry.list("t")]
    thread = await registry.get_thread("t")
    assert thread is not None
    if strategy == "rollback":
        assert left == ["third"]
        assert (thread.status, thread.values) == ("idle", {"log": ["two"]})
    else:
        assert left == ["third", "second", "first"]
        assert (thread.status, thread.values) == ("idle", {"log": ["one", "two"]})
    for run_id in ("first", "second"):
        assert await eventually(partial(bridge.end_reason, run_id)) == "cancelled"


async def test_interrupt_right_after_a_start_is_seen(
    manager: RunManager, registry: RunRegistry, saver: InMemorySaver
) -> None:
    for number in range(10):
        thread_id = f"t{number}"
        first = await manager.start(request(long(saver), f"a{number}", thread_id))
        second = await manager.start(
            request(steps(two, checkpointer=saver), f"b{number}", thread_id, multitask_strategy="interrupt")
        )
        async with asyncio.timeout(60):
            assert (await first.wait(), await second.wait()) == ("interrupted", "success")


async def test_run_for_later_begins_in_time(manager: RunManager, registry: RunRegistry) -> None:
    async def is_in_time(seconds: float) -> bool:
        name = f"later-{seconds}"
        began = time.monotonic()
        later = await manager.start(request(steps(one), name, name, after_seconds=seconds))
        assert later.status == "pending"
        now = await manager.start(request(steps(one), f"now-{seconds}", name))
        assert await now.wait() == "success"
        is_early = later.status == "pending"
        assert await later.wait() == "success"
        seconds_late = time.monotonic() - began - seconds
        await became(registry, name, "success")
        return is_early and 0 <= seconds_late < 0.6  # at once: by itself it would look again a second after it began

    assert await for_one_of((0.3, 1.3, 2.3, 3.3, 4.3, 5.3), is_in_time)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("command", [Command(update={"log": 7}), Command(resume="yes", update={"log": 7})])
async def test_command_that_the_state_refuses_leaves_the_thread_usable(
    manager: RunManager, saver: InMemorySaver, command: Command[Any], durability: Any
) -> None:
    graph = steps(ask, two, checkpointer=saver)
    asked = await manager.start(request(graph, "asked"))
    assert await asked.wait() == "success"
    before = await history(saver)
    refused = await manager.start(request(graph, "refused", input=command, durability=durability))
    assert await refused.wait() == "error"
    assert await history(saver) == before
    answered = await manager.start(request(graph, "answered", input=Command(resume="no")))
    assert await answered.wait() == "success"
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    assert state.values == {"log": ["answered no", "two"]}


async def test_answer_to_a_node_that_then_fails_is_kept(manager: RunManager, saver: InMemorySaver) -> None:
    """As LangGraph has it: the node is tried again with that answer."""
    healthy = asyncio.Event()

    def ask_and_fail(state: State) -> State:
        answers = ask(state)
        if not healthy.is_set():
            raise ValueError("not now")
        return answers

    graph = steps(ask_and_fail, checkpointer=saver)
    asked = await manager.start(request(graph, "asked"))
    assert await asked.wait() == "success"
    failed = await manager.start(request(graph, "failed", input=Command(resume="yes")))
    assert await failed.wait() == "error"
    healthy.set()
    again = await manager.start(request(graph, "again", input=None))
    assert await again.wait() == "success"
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    assert state.values == {"log": ["answered yes"]}
