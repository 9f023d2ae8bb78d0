"""Two replicas on one registry: who executes what the other leaves, and how soon it hears of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from deerflow_replica.runs.manager import RunManager
from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.records import RunRecord, ThreadHead
from deerflow_replica.runs.registry.sqlite import SqliteRunRegistry
from deerflow_replica.runs.request import RunRequest
from deerflow_replica.stream import RedisStreamBridge
from runs.graphs import State, one, steps, two, wait_for_ever
from runs.managing import became, events_of, history, request
from waiting import eventually

pytestmark = pytest.mark.anyio

Join = Callable[..., Awaitable[RunManager]]


@pytest.fixture
async def join(redis_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Join]:
    """One more replica, with connections of its own."""
    async with AsyncExitStack() as stack:

        async def join(replica_id: str, **options: Any) -> RunManager:
            bridge = await stack.enter_async_context(RedisStreamBridge(redis_url=redis_url, key_prefix=key_prefix))
            registry = await stack.enter_async_context(SqliteRunRegistry(tmp_path / "runs.db"))
            manager = RunManager(bridge, registry, replica_id=replica_id, **options)
            await manager.open()
            stack.push_async_callback(manager.close)
            return manager

        yield join


def serving(graph: Any) -> Callable[[RunRecord, ThreadHead], Awaitable[RunRequest | None]]:
    async def adopt(record: RunRecord, head: ThreadHead) -> RunRequest | None:
        assert head.thread_id == record.thread_id
        return request(graph, record.run_id, record.thread_id, assistant_id=record.assistant_id)

    return adopt


async def unknown(record: RunRecord, head: ThreadHead) -> RunRequest | None:
    return None


def registry_of(manager: RunManager) -> RunRegistry:
    return manager._place.registry


async def test_what_waits_in_a_leaving_replica_is_executed_elsewhere(join: Join) -> None:
    going_on = asyncio.Event()

    async def wait(state: State) -> State:
        await going_on.wait()
        return {}

    leaving, other, stranger = await join("leaving"), await join("other", lease_seconds=5.0), await join("stranger")
    stranger.adopt_with(unknown)
    other.adopt_with(unknown)
    other.adopt_with(serving(steps(two)))
    leaving.adopt_with(serving(steps(two)))
    running = await leaving.start(request(steps(wait), "running", assistant_id="a"))
    await leaving.start(request(steps(one), "waiting", assistant_id="a"))
    nameless = await leaving.start(request(steps(one), "nameless"))
    assert await leaving.release_pending() == {"waiting"}
    await eventually(lambda: not leaving.executes("waiting") and other.executes("waiting"))
    await stranger.sweep_now()
    going_on.set()
    assert await running.wait() == "success"
    assert await nameless.wait() == "success"
    registry = registry_of(other)
    await became(registry, "waiting", "success")
    record = await registry.get("waiting")
    assert record is not None
    assert record.owner == "other"
    assert await events_of(other._place.bridge, "waiting") == ["metadata", "values"]


async def test_what_nobody_can_execute_ends_as_an_orphan(join: Join) -> None:
    leaving, other = await join("leaving"), await join("other", lease_seconds=1.0)
    other.adopt_with(unknown)
    await leaving.start(request(steps(wait_for_ever), "running"))
    await leaving.start(request(steps(one), "waiting", assistant_id="a"))
    assert await leaving.release_pending() == {"waiting"}
    await became(registry_of(other), "waiting", "error")
    assert await events_of(other._place.bridge, "waiting") == ["error"]


async def test_replica_that_leaves_neither_adopts_nor_ends_what_it_released(join: Join) -> None:
    leaving = await join("leaving", lease_seconds=1.0)
    leaving.adopt_with(serving(steps(two)))
    await leaving.start(request(steps(wait_for_ever), "running"))
    await leaving.start(request(steps(one), "waiting", assistant_id="a"))
    assert await leaving.release_pending() == {"waiting"}
    await eventually(lambda: not leaving.executes("waiting"))
    others_chance = time.monotonic() + 0.3
    while time.monotonic() < others_chance:
        await leaving.sweep_now()
    assert not leaving.executes("waiting")
    assert [record.run_id for record in await registry_of(leaving).adoptable()] == ["waiting"]


async def test_broken_adopter_is_no_obstacle(join: Join, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(record: RunRecord, head: ThreadHead) -> RunRequest | None:
        raise KeyError("of another version")

    leaving, other = await join("leaving"), await join("other", lease_seconds=5.0)
    other.adopt_with(broken)
    other.adopt_with(serving(steps(two)))
    first = await leaving.start(request(steps(wait_for_ever), "running"))
    await leaving.start(request(steps(one), "waiting", assistant_id="a"))
    await leaving.release_pending()
    await first.cancel()
    await became(registry_of(other), "waiting", "success")
    assert "of another version" in caplog.text


async def test_leaving_leaves_what_waits_to_others(join: Join) -> None:
    leaving, other = await join("leaving"), await join("other", lease_seconds=5.0)
    other.adopt_with(serving(steps(two)))
    await leaving.start(request(steps(wait_for_ever), "running", assistant_id="a"))
    await leaving.start(request(steps(one), "waiting", assistant_id="a"))
    await leaving.close()
    await became(registry_of(other), "running", "error")
    await became(registry_of(other), "waiting", "success")


async def test_rollback_whose_owner_is_lost_is_finished_elsewhere(join: Join) -> None:
    saver = InMemorySaver()
    lost = await join("lost", lease_seconds=1.0)
    graph = steps(one, wait_for_ever, checkpointer=saver)
    run = await lost.start(request(graph, "r"))
    await eventually(lambda: _has_checkpoints(saver))
    registry = registry_of(lost)
    await registry._cancel("r", "rollback")  # told to nobody
    if execution := lost._executions.get("r"):  # unless the machine stood still for a lease, and it was given up
        await execution.abandon()
    assert await run.wait() == "error"
    other = await join("other", lease_seconds=1.0, checkpointer=saver)
    await eventually(lambda: _is_gone(registry, "r"))
    assert await eventually(lambda: other._place.bridge.end_reason("r")) == "cancelled"
    assert await history(saver) == []
    thread = await registry.get_thread("t")
    assert thread is not None
    assert thread.status == "idle"


async def test_run_that_waits_elsewhere_is_woken_at_once(join: Join) -> None:
    here, there = await join("here"), await join("there")
    waits = []
    for number in range(12):
        thread_id = f"t{number}"
        first = await here.start(request(steps(wait_for_ever), f"a{number}", thread_id))
        second = await there.start(request(steps(one), f"b{number}", thread_id))
        assert second.status == "pending"
        await first.cancel()
        assert await first.wait() == "interrupted"
        began = time.monotonic()
        assert await second.wait() == "success"
        waits.append(time.monotonic() - began)
    assert sorted(waits)[3] < 0.25  # by itself it looks once a second


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_strategy_reaches_a_run_elsewhere_at_once(join: Join, strategy: Any) -> None:
    saver = InMemorySaver()
    here, there = await join("here", lease_seconds=600.0), await join("there", lease_seconds=600.0)
    first = await here.start(request(steps(one, wait_for_ever, checkpointer=saver), "first"))
    await eventually(lambda: _has_checkpoints(saver))
    began = time.monotonic()
    second = await there.start(request(steps(two, checkpointer=saver), "second", multitask_strategy=strategy))
    assert (await first.wait(), await second.wait()) == ("interrupted", "success")
    assert time.monotonic() - began < 60  # by itself it would hear of it with the next renewal
    left = [record.run_id for record in await registry_of(there).list("t")]
    assert left == (["second"] if strategy == "rollback" else ["second", "first"])


async def test_run_is_deleted_from_another_replica(join: Join) -> None:
    saver = InMemorySaver()
    here = await join("here", lease_seconds=60.0, checkpointer=saver)
    there = await join("there", lease_seconds=60.0, checkpointer=saver)
    run = await here.start(request(steps(one, wait_for_ever, checkpointer=saver)))
    await eventually(lambda: _has_checkpoints(saver))
    assert await there.delete_run("r")
    assert await run.wait() == "interrupted"
    assert await history(saver) == []
    again = await here.start(request(steps(one, wait_for_ever, checkpointer=saver), "again"))
    assert await there.delete_thread("t")
    assert await again.wait() == "interrupted"
    assert await registry_of(here).get_thread("t") is None


async def _has_checkpoints(saver: InMemorySaver) -> bool:
    return len(await history(saver)) >= 2


async def _is_gone(registry: RunRegistry, run_id: str) -> bool:
    return await registry.get(run_id) is None
