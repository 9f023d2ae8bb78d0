"""Runs that wait in a replica which leaves: another one executes them, as they were asked for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.calling import status_of
from gateway.graphs import asking_graph, counting_graph
from gateway.replicas import LocalReplica, local_replica
from gateway.serving import Clients
from waiting import eventually

pytestmark = pytest.mark.anyio

QUICK = {"gateway": {"lease_seconds": 6.0}}


@pytest.fixture
def quick(shared: dict[str, Any]) -> dict[str, Any]:
    """Replicas that look around every second or so, and outlive a pause of some seconds."""
    return {**shared, **QUICK}


async def started(stack: AsyncExitStack, config: dict[str, Any], graphs: dict[str, Any] | None = None) -> LocalReplica:
    return await stack.enter_async_context(local_replica(config, graphs))


async def test_a_queued_run_moves_with_all_that_was_asked_of_it(quick: dict[str, Any], sdk: Clients) -> None:
    async with AsyncExitStack() as stack:
        leaving, staying = await started(stack, quick), await started(stack, quick)
        here, there = sdk(leaving.url, "alice"), sdk(staying.url, "alice")
        assistant = await here.assistants.create("agent", config={"configurable": {"colour": "red"}}, name="mine")
        thread_id = (await here.threads.create())["thread_id"]
        first = await here.runs.create(thread_id, "agent", input={"count": 1000, "pause": 0.05})
        queued = await here.runs.create(
            thread_id,
            assistant["assistant_id"],
            input={"count": 3},
            metadata={"k": "v"},
            stream_mode=["custom", "updates"],
            config={"tags": ["t"], "configurable": {"size": 1}},
        )
        await here.assistants.delete(assistant["assistant_id"])
        draining = asyncio.create_task(leaving.app.state.gateway.drain())
        await eventually(lambda: staying.app.state.gateway.replica._manager.executes(queued["run_id"]))
        await there.runs.cancel(thread_id, first["run_id"])
        assert (await there.runs.join(thread_id, queued["run_id"]))["total"] == 3
        parts = [part async for part in there.runs.join_stream(thread_id, queued["run_id"], last_event_id="-1")]
        assert [part.event for part in parts] == ["metadata", "custom", "custom", "custom", "updates"]
        assert parts[0].data == {"run_id": queued["run_id"], "attempt": 1}
        after = await there.runs.get(thread_id, queued["run_id"])
        kept = ("assistant_id", "metadata", "kwargs", "multitask_strategy", "created_at")
        assert {key: after[key] for key in kept} == {key: queued[key] for key in kept}  # type: ignore[literal-required]  # of a run
        state = await there.threads.get_state(thread_id)
        seen = state["metadata"] or {}
        assert (seen["user_id"], seen["colour"], seen["size"], seen["run_id"]) == ("alice", "red", 1, queued["run_id"])
        await draining


async def test_a_hidden_run_moves_too(quick: dict[str, Any], sdk: Clients) -> None:
    busy = {**quick, "gateway": {**quick["gateway"], "max_concurrent_runs": 1}}
    async with AsyncExitStack() as stack:
        leaving, staying = await started(stack, busy), await started(stack, quick)
        here, there = sdk(leaving.url, "alice"), sdk(staying.url, "alice")
        first = await here.runs.create(None, "agent", input={"count": 1000, "pause": 0.05})
        queued = await here.runs.create(None, "agent", input={"count": 2})
        assert queued["status"] == "pending"
        draining = asyncio.create_task(leaving.app.state.gateway.drain())
        assert (await there.runs.join(queued["thread_id"], queued["run_id"]))["total"] == 2
        assert await there.threads.search() == []
        await there.runs.cancel(first["thread_id"], first["run_id"])
        await draining


async def test_a_replica_without_the_graph_leaves_a_run_to_others(quick: dict[str, Any], sdk: Clients) -> None:
    async with AsyncExitStack() as stack:
        leaving = await started(stack, quick)
        stranger = await started(stack, quick, {"asking": asking_graph()})
        staying = await started(stack, quick, {"agent": counting_graph()})
        here, there = sdk(leaving.url, "alice"), sdk(stranger.url, "alice")
        thread_id = (await here.threads.create())["thread_id"]
        first = await here.runs.create(thread_id, "agent", input={"count": 1000, "pause": 0.05})
        queued = await here.runs.create(thread_id, "agent", input={"count": 2})
        draining = asyncio.create_task(leaving.app.state.gateway.drain())
        await stranger.app.state.gateway.replica._manager.sweep_now()
        await eventually(lambda: staying.app.state.gateway.replica._manager.executes(queued["run_id"]))
        await there.runs.cancel(thread_id, first["run_id"])
        await status_of(there, thread_id, queued["run_id"], "success")
        await draining
