"""Two real replicas, one of them in a process that can be killed or stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deerflow_replica.config import AppConfig
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.stream import END_SENTINEL, StreamEvent
from replicas.processes import Settings, everything, ticked, worker
from replicas.worker import ticking
from waiting import eventually

pytestmark = pytest.mark.anyio

BUSY_MACHINE_SECONDS = 10  # that it may stand still


async def test_run_of_one_replica_is_read_on_another(settings: Settings, replica: Replica) -> None:
    settings["gateway"]["lease_seconds"] = 60.0
    async with worker(settings, until=30) as (_, run_id):
        seen: list[StreamEvent] = []
        last: str | None = None
        while not seen or seen[-1] is not END_SENTINEL:  # a client that loses its connection every seven events
            stream = replica.bridge.subscribe(run_id, last_event_id=last or "0-0")
            async for item in stream:
                assert isinstance(item, StreamEvent)
                seen.append(item)
                last = item.id or last
                if len(seen) % 7 == 0:
                    break
            await stream.aclose()
        assert [event.data for event in seen[1:-1]] == [{"tick": number} for number in range(1, 31)]
        record, thread = await replica.runs.get(run_id), await replica.runs.get_thread("t")
        assert record is not None
        assert thread is not None
        assert (record.status, thread.status, thread.values) == ("success", "idle", {"ticks": 30, "until": 30})
        assert record.owner != replica.replica_id


@pytest.mark.parametrize(("lease_seconds", "limit_seconds"), [(2.0, 5.0), (10.0, 15.0)])
async def test_killed_replicas_run_ends_with_an_error_and_the_thread_goes_on(
    settings: Settings, lease_seconds: float, limit_seconds: float
) -> None:
    settings["gateway"]["lease_seconds"] = lease_seconds
    async with open_replica(AppConfig.from_mapping(settings)) as replica:
        async with worker(settings, until=1_000_000) as (process, run_id):
            await ticked(replica, run_id, 5)
            os.kill(process.pid, signal.SIGKILL)
            killed = time.monotonic()
            events = await everything(replica, run_id)
            assert time.monotonic() - killed < limit_seconds + BUSY_MACHINE_SECONDS
        assert [event.event for event in events].count("error") == 1
        assert (events[-1].event, events[-1].data["error"]) == ("error", "RunOrphaned")
        assert await replica.bridge.end_reason(run_id) == "orphaned"
        record, thread = await replica.runs.get(run_id), await replica.runs.get_thread("t")
        assert record is not None
        assert thread is not None
        assert (record.status, record.error, thread.status) == ("error", events[-1].data, "error")
        graph = ticking(checkpointer=replica.checkpointer)
        run = await replica.start_run(graph, {"ticks": 0, "until": 2}, thread_id="t", user_id="u")
        assert await run.wait() == "success"


async def test_stopped_replica_writes_nothing_once_its_run_is_taken(settings: Settings, replica: Replica) -> None:
    graph = ticking(checkpointer=replica.checkpointer)
    async with worker(settings, until=1_000_000) as (process, run_id):
        await ticked(replica, run_id, 5)
        os.kill(process.pid, signal.SIGSTOP)
        events = await everything(replica, run_id)
        before = await _traces(replica, graph, run_id)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert (await process.stdout.readline()).strip() == b"error"
        assert await _traces(replica, graph, run_id) == before
        assert await everything(replica, run_id) == events


async def test_cancel_from_another_replica_needs_no_renewal(settings: Settings) -> None:
    settings["gateway"]["lease_seconds"] = 60.0
    async with open_replica(AppConfig.from_mapping(settings)) as replica:
        async with worker(settings, until=1_000_000) as (_, run_id):
            await ticked(replica, run_id, 2)
            began = time.monotonic()
            assert await replica.runs.cancel(run_id)
            events = await everything(replica, run_id)
            assert time.monotonic() - began < 15  # long before the next renewal
        assert "error" not in [event.event for event in events]
        assert await replica.bridge.end_reason(run_id) == "cancelled"
        await eventually(_has_status(replica, run_id, "interrupted"))


async def test_thread_busy_elsewhere_makes_a_run_wait(settings: Settings) -> None:
    settings["gateway"]["lease_seconds"] = 60.0
    async with worker(settings, until=1_000_000) as (_, first), open_replica(AppConfig.from_mapping(settings)) as here:
        graph = ticking(checkpointer=here.checkpointer)
        run = await here.start_run(graph, {"ticks": 0, "until": 2}, thread_id="t", user_id="u")
        assert run.status == "pending"
        assert await here.runs.cancel(first)
        await everything(here, first)
        async with asyncio.timeout(60):
            assert await run.wait() == "success"


async def _traces(replica: Replica, graph: Any, run_id: str) -> Any:
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    return state, await replica.runs.get(run_id), await replica.runs.get_thread("t")


def _has_status(replica: Replica, run_id: str, status: str) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        record = await replica.runs.get(run_id)
        return record is not None and record.status == status

    return has
