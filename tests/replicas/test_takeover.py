"""What one real replica does for runs of another that is killed, stopped, or just elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace as changed
from typing import Any

import pytest

from deerflow_replica.replica import Replica
from deerflow_replica.runs.registry.records import RunRecord, ThreadHead
from deerflow_replica.runs.request import RunRequest
from replicas.processes import Settings, everything, ticked, worker
from replicas.worker import queued, ticking

pytestmark = [pytest.mark.anyio, pytest.mark.faults]


def adopts(replica: Replica) -> Replica:
    """It knows the assistant of the runs that wait in the worker."""
    graph = ticking(checkpointer=replica.checkpointer)

    async def rebuilt(record: RunRecord, head: ThreadHead) -> RunRequest | None:
        return queued(graph, record.run_id, record.thread_id, record.kwargs["until"])

    replica._manager.adopt_with(rebuilt)
    return replica


async def history(replica: Replica) -> list[Any]:
    saver = replica.checkpointer
    return [
        (saved.config, saved.metadata, saved.checkpoint["channel_versions"], saved.pending_writes)
        async for saved in saver.alist({"configurable": {"thread_id": "t"}})
    ]


async def seed(replica: Replica) -> None:
    """A state to go back to."""
    graph = ticking(checkpointer=replica.checkpointer)
    run = await replica.start_run(graph, {"until": 3}, thread_id="t", user_id="u")
    assert await run.wait() == "success"


async def test_runs_that_wait_for_a_killed_replicas_run_are_executed(settings: Settings, replica: Replica) -> None:
    adopts(replica)
    async with worker(settings, until=1_000_000, waiting=2) as (process, run_id):
        await ticked(replica, run_id, 3)
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            assert (await everything(replica, run_id))[-1].data["error"] == "RunOrphaned"
            waiting = [await everything(replica, f"q{number}") for number in range(2)]
    assert [[event.event for event in events] for events in waiting] == [["metadata", *["custom"] * 3]] * 2
    records = await replica.runs.list("t")
    assert [(record.run_id, record.status) for record in records] == [
        ("q1", "success"), ("q0", "success"), (run_id, "error"),
    ]  # fmt: skip
    assert {record.owner for record in records[:2]} == {replica.replica_id}
    thread = await replica.runs.get_thread("t")
    assert thread is not None
    assert (thread.status, thread.values) == ("idle", {"ticks": 3, "until": 3})


async def test_stopped_replica_does_not_begin_what_was_adopted(settings: Settings, replica: Replica) -> None:
    adopts(replica)
    async with worker(settings, until=1_000_000, waiting=1) as (process, run_id):
        await ticked(replica, run_id, 3)
        os.kill(process.pid, signal.SIGSTOP)
        async with asyncio.timeout(60):
            events = await everything(replica, "q0")
        before = await history(replica), await replica.runs.list("t"), await replica.runs.get_thread("t")
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert (await process.stdout.readline()).strip() == b"error"
        assert (await history(replica), await replica.runs.list("t"), await replica.runs.get_thread("t")) == before
        assert await everything(replica, "q0") == events
        assert len(events) == 4


async def test_run_that_executes_elsewhere_is_rolled_back(settings: Settings, replica: Replica) -> None:
    await seed(replica)
    before, thread = await history(replica), await replica.runs.get_thread("t")
    assert thread is not None
    settings["gateway"]["lease_seconds"] = 60.0
    async with worker(settings, until=1_000_000) as (_, run_id):
        await ticked(replica, run_id, 8)
        assert len(await history(replica)) > len(before)
        assert await replica.runs.cancel(run_id, action="rollback")
        async with asyncio.timeout(15):
            events = await everything(replica, run_id)
        assert "error" not in [event.event for event in events]
        assert await replica.bridge.end_reason(run_id) == "cancelled"
        assert await replica.runs.get(run_id) is None
        assert await history(replica) == before
        after = await replica.runs.get_thread("t")
        assert after is not None
        assert changed(after, updated_at=thread.updated_at) == thread


async def test_rollback_that_a_stopped_replica_cannot_do_is_done_for_it(settings: Settings, replica: Replica) -> None:
    await seed(replica)
    before = await history(replica)
    async with worker(settings, until=1_000_000) as (process, run_id):
        await ticked(replica, run_id, 8)
        os.kill(process.pid, signal.SIGSTOP)
        assert await replica.runs.cancel(run_id, action="rollback")
        async with asyncio.timeout(60):
            await everything(replica, run_id)
        assert await replica.runs.get(run_id) is None
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            await process.stdout.readline()
        assert await history(replica) == before
        thread = await replica.runs.get_thread("t")
        assert thread is not None
        assert (thread.status, thread.values) == ("idle", {"ticks": 3, "until": 3})


async def test_busy_thread_of_another_replica_is_deleted(settings: Settings, replica: Replica) -> None:
    settings["gateway"]["lease_seconds"] = 60.0
    async with worker(settings, until=1_000_000, waiting=1) as (_, run_id):
        await ticked(replica, run_id, 3)
        async with asyncio.timeout(15):
            assert await replica._manager.delete_thread("t")
        assert await replica.bridge.end_reason(run_id) == "cancelled"
        assert await replica.bridge.end_reason("q0") == "cancelled"
        assert await history(replica) == []
        assert await replica.runs.get_thread("t") is None
