"""Whatever a graph or a crash does, a run ends once, visibly, with at most one `error`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from deerflow_replica.runs.manager import RunManager
from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.runs.registry.records import Unclosed
from deerflow_replica.runs.request import RunRequest, opened
from deerflow_replica.runs.tail import last_event, latest_event_id
from deerflow_replica.runs.workplace import end_stream
from deerflow_replica.stream import END_SENTINEL, InMemoryStreamBridge, RedisStreamBridge, StreamBridge, StreamEvent
from runs.graphs import State, steps, two, wait_for_ever
from waiting import eventually

pytestmark = pytest.mark.anyio

ERROR = {"error": "E", "message": "m"}


@pytest.fixture
async def registry() -> AsyncIterator[InMemoryRunRegistry]:
    async with InMemoryRunRegistry() as registry:
        yield registry


@pytest.fixture(params=["inmemory", "redis"])
async def bridge(request: pytest.FixtureRequest) -> AsyncIterator[StreamBridge]:
    if request.param == "inmemory":
        made: StreamBridge = InMemoryStreamBridge()
    else:
        url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("key_prefix")
        made = RedisStreamBridge(redis_url=url, key_prefix=prefix)
    async with made as bridge:
        yield bridge


async def managed(bridge: StreamBridge, registry: InMemoryRunRegistry, **options: Any) -> RunManager:
    manager = RunManager(bridge, registry, replica_id="one", **options)
    await manager.open()
    return manager


def request(graph: Any, run_id: str = "r", thread_id: str = "t") -> RunRequest:
    configurable = {"thread_id": thread_id, "run_id": run_id}
    return RunRequest(
        open_graph=opened(graph), input={}, thread_id=thread_id, run_id=run_id, config={"configurable": configurable}
    )


async def events_of(bridge: StreamBridge, run_id: str = "r") -> list[StreamEvent]:
    """Everything up to END."""
    found: list[StreamEvent] = []
    async with asyncio.timeout(60):
        async for item in bridge.subscribe(run_id, last_event_id="0-0"):
            if item is END_SENTINEL:
                return found
            assert isinstance(item, StreamEvent)
            found.append(item)
    raise AssertionError("the stream has no END")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("raised", "name"),
    [
        (MuteError(), "MuteError"),
        (ValueError("long " * 3_000_000), "ValueError"),
        (ValueError("odd \ud800 \0"), "ValueError"),
    ],
    ids=["mute", "long", "odd"],
)
async def test_whatever_a_graph_raises_ends_its_run_at_once(
    bridge: StreamBridge,
    registry: InMemoryRunRegistry,
    caplog: pytest.LogCaptureFixture,
    raised: Exception,
    name: str,
) -> None:
    async def fail(state: State) -> State:
        raise raised

    manager = await managed(bridge, registry)
    try:
        run = await manager.start(request(steps(fail)))
        assert await asyncio.wait_for(run.wait(), 60) == "error"
        record = await registry.get("r")
        assert record is not None
        assert record.status == "error"
        assert record.error is not None
        assert record.error["error"] == name
        assert "in fail\n" in caplog.text
        assert len(caplog.text.encode()) < 50_000
        events = await events_of(bridge)
        assert [event.event for event in events] == ["metadata", "error"]
        assert events[-1].data["error"] == name
        assert len(events[-1].data["message"]) < 20_000
    finally:
        await manager.close()


async def test_a_cancellation_that_nobody_asked_for_is_an_error(
    bridge: StreamBridge, registry: InMemoryRunRegistry
) -> None:
    run_id = "r"

    @asynccontextmanager
    async def open_graph() -> AsyncIterator[Any]:
        if run_id:
            raise asyncio.CancelledError("leaked by a library")
        yield None

    manager = await managed(bridge, registry)
    try:
        run = await manager.start(replace(request(None), open_graph=open_graph))
        assert await asyncio.wait_for(run.wait(), 60) == "error"
        assert [event.event for event in await events_of(bridge)] == ["metadata", "error"]
    finally:
        await manager.close()


async def test_a_replica_that_died_between_error_and_end_leaves_one_error(bridge: StreamBridge) -> None:
    await bridge.publish("r", "metadata", {})
    await bridge.publish("r", "error", ERROR)
    await end_stream(bridge, "r", ERROR, "error")
    assert [event.event for event in await events_of(bridge)] == ["metadata", "error"]


async def test_a_replica_that_died_before_the_error_leaves_one_error(bridge: StreamBridge) -> None:
    await bridge.publish("r", "metadata", {})
    await end_stream(bridge, "r", ERROR, "orphaned")
    assert [event.event for event in await events_of(bridge)] == ["metadata", "error"]


async def test_a_replica_that_died_before_the_first_event_leaves_one_error(bridge: StreamBridge) -> None:
    await end_stream(bridge, "r", ERROR, "orphaned")
    assert [event.event for event in await events_of(bridge)] == ["error"]


async def test_the_tail_of_a_stream(bridge: StreamBridge) -> None:
    assert await latest_event_id(bridge, "r") is None
    assert await last_event(bridge, "r") is None
    for number in range(3):
        await bridge.publish("r", "custom", number)
        await bridge.flush("r")
        found = await last_event(bridge, "r")
        assert found is not None
        assert found.data == number
        assert found.id == await latest_event_id(bridge, "r")
    await bridge.publish_end("r")
    ended = await last_event(bridge, "r")
    assert ended is not None
    assert ended.data == 2


async def test_readers_that_ask_at_once_share_a_sweep() -> None:
    class Counted(InMemoryRunRegistry):
        sweeps = 0

        async def sweep(self, *, limit: int = 100, adoption_seconds: float = 0.0) -> Sequence[Unclosed]:
            self.sweeps += 1
            await asyncio.sleep(0)
            return await super().sweep(limit=limit, adoption_seconds=adoption_seconds)

    async with InMemoryStreamBridge() as bridge, Counted() as counted:
        manager = RunManager(bridge, counted, replica_id="one")
        await asyncio.gather(*(manager.sweep_now() for _ in range(100)))
        assert counted.sweeps <= 2
        await manager.sweep_now()
        assert 2 <= counted.sweeps <= 3


async def test_a_run_that_waits_for_its_thread_takes_no_slot(registry: InMemoryRunRegistry) -> None:
    async with InMemoryStreamBridge() as bridge:
        other = await managed(bridge, registry)
        manager = await managed(bridge, registry, max_concurrent_runs=1)
        try:
            first = await other.start(request(steps(wait_for_ever), "first", "busy"))
            await eventually(lambda: first.status == "running")
            await manager.start(request(steps(two), "waiting", "busy"))
            free = await manager.start(request(steps(two), "free", "free"))
            assert await asyncio.wait_for(free.wait(), 60) == "success"
        finally:
            await manager.close()
            await other.close()


async def test_the_operator_finds_where_a_run_failed(
    registry: InMemoryRunRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def exploding_node(state: State) -> State:
        raise ValueError("my tool exploded")

    async with InMemoryStreamBridge() as bridge:
        manager = await managed(bridge, registry)
        try:
            run = await manager.start(request(steps(exploding_node)))
            assert await run.wait() == "error"
        finally:
            await manager.close()
    assert "run r failed" in caplog.text
    assert "in exploding_node" in caplog.text
