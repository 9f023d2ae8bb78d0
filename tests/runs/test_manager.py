"""Runs while the registry or the stream's server is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from deerflow_replica.errors import ReplicaError
from deerflow_replica.runs.manager import RunManager
from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.runs.request import RunRequest, opened
from deerflow_replica.stream import END_SENTINEL, InMemoryStreamBridge, StreamBridge, StreamEvent
from deerflow_replica.testing._contract import for_one_of
from proxy import CuttingProxy
from runs.graphs import State, one, steps, wait_for_ever
from waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bridge() -> AsyncIterator[InMemoryStreamBridge]:
    async with InMemoryStreamBridge() as bridge:
        yield bridge


@pytest.fixture
async def registry() -> AsyncIterator[InMemoryRunRegistry]:
    """Closed, it answers as a database that is away does."""
    async with InMemoryRunRegistry() as registry:
        yield registry


@pytest.fixture
async def manager(bridge: InMemoryStreamBridge, registry: InMemoryRunRegistry) -> AsyncIterator[RunManager]:
    async with managed(bridge, registry) as manager:
        yield manager


@asynccontextmanager
async def managed(
    bridge: StreamBridge, registry: InMemoryRunRegistry, lease_seconds: float = 60.0
) -> AsyncIterator[RunManager]:
    manager = RunManager(bridge, registry, replica_id="one", lease_seconds=lease_seconds)
    await manager.open()
    yield manager
    await manager.close()


def request(graph: Any, run_id: str = "r", thread_id: str = "t") -> RunRequest:
    configurable = {"thread_id": thread_id, "run_id": run_id}
    return RunRequest(
        open_graph=opened(graph), input={}, thread_id=thread_id, run_id=run_id, config={"configurable": configurable}
    )


async def test_database_away_for_less_than_a_lease_is_not_noticed(
    manager: RunManager, registry: InMemoryRunRegistry
) -> None:
    going_on = asyncio.Event()

    async def wait(state: State) -> State:
        await going_on.wait()
        return {"log": ["done"]}

    run = await manager.start(request(steps(wait)))
    await eventually(lambda: run.status == "running")
    await registry.close()
    going_on.set()
    with pytest.raises(TimeoutError):  # the status cannot be stored yet
        await asyncio.wait_for(run.wait(), 0.3)
    await registry.open()
    assert await run.wait() == "success"


async def test_database_away_for_longer_stops_the_run_which_writes_nothing_more(
    registry: InMemoryRunRegistry, bridge: InMemoryStreamBridge
) -> None:
    async def is_stopped(lease_seconds: float) -> bool:
        saver, run_id = InMemorySaver(), f"r{lease_seconds}"
        stopped = asyncio.Event()

        async def stubborn(state: State) -> State:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return {}

        async with managed(bridge, registry, lease_seconds) as manager:
            before = bridge.stats().published
            run = await manager.start(request(steps(one, stubborn, checkpointer=saver), run_id, run_id))
            await eventually(lambda: bridge.stats().published >= before + 2)
            await registry.close()
            is_late = stopped.is_set()  # the machine stood still for a lease
            published = bridge.stats().published
            await stopped.wait()
            assert await run.wait() == "error"
            checkpoints = len(list(saver.list(None)))
            assert bridge.stats().published == published
            assert is_late or await bridge.end_reason(run_id) is None
            await registry.open()
            assert await eventually(lambda: bridge.end_reason(run_id)) == "orphaned"
            items = [item async for item in bridge.subscribe(run_id)]
            assert isinstance(items[-2], StreamEvent)
            assert items[-2].data["error"] == "RunOrphaned"
            assert len(list(saver.list(None))) == checkpoints
        return not is_late

    assert await for_one_of((1.0, 6.0), is_stopped)


async def test_run_that_does_not_stop_is_given_up_with_its_lease(
    registry: InMemoryRunRegistry, bridge: InMemoryStreamBridge
) -> None:
    going_on, stopping = asyncio.Event(), asyncio.Event()

    async def clinging(state: State) -> State:
        try:
            await asyncio.Event().wait()
        finally:
            stopping.set()
            await going_on.wait()
        return {}

    async with managed(bridge, registry, lease_seconds=1.0) as manager:
        run = await manager.start(request(steps(one, clinging)))
        await eventually(lambda: bridge.stats().published >= 2)
        await registry.cancel("r")
        await stopping.wait()
        await registry.close()
        async with asyncio.timeout(60):
            assert await run.wait() == "error"
        await registry.open()


async def test_stream_server_away_fails_no_run(redis_url: str, key_prefix: str, registry: InMemoryRunRegistry) -> None:
    from deerflow_replica.stream import RedisStreamBridge

    proxy = CuttingProxy(redis_url)
    await proxy.start()
    going_on = asyncio.Event()

    async def wait(state: State) -> State:
        await going_on.wait()
        return {"log": ["done"]}

    async with RedisStreamBridge(redis_url=proxy.url, key_prefix=key_prefix, publish_timeout_seconds=0.3) as bridge:
        manager = RunManager(bridge, registry, replica_id="one", lease_seconds=60.0)
        await manager.open()
        run = await manager.start(request(steps(one, wait)))
        await eventually(lambda: bridge.stats().published >= 2)
        proxy.is_refusing = True
        proxy.cut()
        going_on.set()
        with pytest.raises(TimeoutError):  # its events are not stored: it is not over
            await asyncio.wait_for(run.wait(), 1.5)
        record = await registry.get("r")
        assert record is not None
        assert record.status == "running"
        proxy.is_refusing = False
        assert await run.wait() == "success"
        items = [item async for item in bridge.subscribe("r", last_event_id="0-0")]
        assert [item.event for item in items[:-1] if isinstance(item, StreamEvent)] == ["metadata", "values", "values"]
        assert items[-1] is END_SENTINEL
        await manager.close()
    await proxy.stop()


async def test_run_cancelled_as_soon_as_it_is_there_ends(manager: RunManager, registry: InMemoryRunRegistry) -> None:
    for number in range(20):
        starting = asyncio.create_task(manager.start(request(steps(wait_for_ever), f"r{number}", f"t{number}")))
        await eventually(_exists(registry, f"r{number}"))
        await registry.cancel(f"r{number}")
        async with asyncio.timeout(15):  # before the next renewal
            assert await (await starting).wait() == "interrupted"


async def test_caller_that_is_cancelled_while_starting_does_not_stop_the_run(
    manager: RunManager, registry: InMemoryRunRegistry
) -> None:
    starting = asyncio.create_task(manager.start(request(steps(one))))
    await asyncio.sleep(0)  # its first step
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await eventually(_exists(registry, "r"))
    await manager.idle()
    record = await registry.get("r")
    assert record is not None
    assert record.status == "success"


async def test_closed_manager_starts_nothing(manager: RunManager, registry: InMemoryRunRegistry) -> None:
    await manager.close()
    with pytest.raises(ReplicaError, match="closed"):
        await manager.start(request(steps(one)))
    assert await registry.get("r") is None


def _exists(registry: InMemoryRunRegistry, run_id: str) -> Callable[[], Awaitable[bool]]:
    async def exists() -> bool:
        return await registry.get(run_id) is not None

    return exists
