"""Runs and threads that are deleted whatever they do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.runs.manager import RunManager
from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.runs.registry.records import NewRun
from deerflow_replica.stream import InMemoryStreamBridge
from deerflow_replica.testing._contract import for_one_of
from runs.graphs import ask, one, steps, two, wait_for_ever
from runs.managing import history, managing, request
from waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bridge() -> AsyncIterator[InMemoryStreamBridge]:
    async with InMemoryStreamBridge() as bridge:
        yield bridge


@pytest.fixture
async def registry() -> AsyncIterator[InMemoryRunRegistry]:
    async with InMemoryRunRegistry() as registry:
        yield registry


@pytest.fixture
def saver() -> InMemorySaver:
    return InMemorySaver()


@pytest.fixture
async def manager(
    bridge: InMemoryStreamBridge, registry: InMemoryRunRegistry, saver: InMemorySaver
) -> AsyncIterator[RunManager]:
    async with managing(bridge, registry, checkpointer=saver, lease_seconds=60.0) as manager:
        yield manager


async def test_running_run_is_stopped_and_leaves_nothing(
    manager: RunManager, bridge: InMemoryStreamBridge, registry: InMemoryRunRegistry, saver: InMemorySaver
) -> None:
    first = await manager.start(request(steps(one, checkpointer=saver), "first"))
    await first.wait()
    before = await history(saver)
    run = await manager.start(request(steps(two, wait_for_ever, checkpointer=saver), "second"))
    assert await manager.delete_run("second")
    assert await bridge.end_reason("second") == "cancelled"
    assert await run.wait() == "interrupted"
    assert [record.run_id for record in await registry.list("t")] == ["first"]
    assert await history(saver) == before
    assert not await manager.delete_run("second")


async def test_waiting_run_is_deleted(
    manager: RunManager, bridge: InMemoryStreamBridge, registry: InMemoryRunRegistry
) -> None:
    first = await manager.start(request(steps(wait_for_ever), "first"))
    await manager.start(request(steps(one), "second"))
    assert await manager.delete_run("second")
    assert await bridge.end_reason("second") == "cancelled"
    assert await registry.get("second") is None
    assert first.status == "running"


async def test_last_run_takes_what_it_left_along(
    manager: RunManager, registry: InMemoryRunRegistry, saver: InMemorySaver
) -> None:
    first = await manager.start(request(steps(one, checkpointer=saver), "first"))
    await first.wait()
    before = await history(saver)
    asking = await manager.start(request(steps(two, ask, checkpointer=saver), "second"))
    await asking.wait()
    assert await manager.delete_run("second")
    thread = await registry.get_thread("t")
    assert thread is not None
    assert (thread.status, thread.values, thread.interrupts) == ("idle", {"log": ["one"]}, {})
    assert await history(saver) == before


async def test_earlier_run_goes_alone(manager: RunManager, registry: InMemoryRunRegistry, saver: InMemorySaver) -> None:
    graph = steps(one, checkpointer=saver)
    for run_id in ("first", "second"):
        await (await manager.start(request(graph, run_id))).wait()
    thread = await registry.get_thread("t")
    assert await manager.delete_run("first")
    assert await registry.get_thread("t") == thread
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    assert state.values == {"log": ["one", "one"]}
    assert {metadata["run_id"] for _, _, metadata, _, _ in await history(saver)} == {"second"}


async def test_busy_thread_goes_with_everything(
    manager: RunManager, bridge: InMemoryStreamBridge, registry: InMemoryRunRegistry, saver: InMemorySaver
) -> None:
    graph = steps(one, wait_for_ever, checkpointer=saver)
    runs = [await manager.start(request(graph, f"r{number}")) for number in range(3)]
    assert await manager.delete_thread("t")
    assert [await run.wait() for run in runs] == ["interrupted"] * 3
    assert [await bridge.end_reason(run.run_id) for run in runs] == ["cancelled"] * 3
    assert await registry.get_thread("t") is None
    assert await registry.list("t") == ()
    assert await history(saver) == []
    assert not await manager.delete_thread("t")


@pytest.mark.faults
async def test_run_that_does_not_end_is_told(bridge: InMemoryStreamBridge, registry: InMemoryRunRegistry) -> None:
    """Its owner holds the lease, and never answers."""
    await registry.admit(NewRun(run_id="r", thread_id="t", owner="deaf"), lease_seconds=60)
    async with managing(bridge, registry, lease_seconds=1.0) as manager:
        with pytest.raises(StoreUnavailableError, match="'r' does not end"):
            await manager.delete_run("r")
    assert await registry.get_thread("t") is not None


async def test_thread_for_one_run_goes_some_time_after_it(
    bridge: InMemoryStreamBridge, registry: InMemoryRunRegistry, saver: InMemorySaver
) -> None:
    graph: Any = steps(one, checkpointer=saver)

    async def is_there_until_then(seconds: float) -> bool:
        options: dict[str, Any] = {"checkpointer": saver, "lease_seconds": 5 * seconds, "retention_seconds": seconds}
        gone, left = f"gone-{seconds}", f"left-{seconds}"
        async with managing(bridge, registry, **options) as manager:
            passing = await manager.start(request(graph, gone, gone, hidden=True, on_completion="delete"))
            kept = await manager.start(request(graph, left, left, hidden=True))
            ends = await passing.wait(), await kept.wait()
            was_there = await registry.get(gone) is not None
            await eventually(lambda: _is_gone(registry, gone))
            assert await registry.get(gone) is None
            assert await history(saver, gone) == []
            assert await registry.get(left) is not None
        return ends == ("success", "success") and was_there

    assert await for_one_of((0.2, 3.0), is_there_until_then)


async def _is_gone(registry: InMemoryRunRegistry, thread_id: str) -> bool:
    return await registry.get_thread(thread_id) is None
