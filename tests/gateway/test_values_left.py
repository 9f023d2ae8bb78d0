"""A thread shows the values that it has, however its last run ended."""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import uuid4

import pytest
from langgraph_sdk.client import LangGraphClient

from deerflow_replica.replica import Replica
from deerflow_replica.runs.registry.records import NewRun
from gateway.threads_of_talk import sdk_of, talking_app
from runs.graphs import fail, one, steps, two, wait_for_ever
from waiting import eventually

pytestmark = pytest.mark.anyio

HI: dict[str, Any] = {"log": ["hi"]}


async def _log(sdk: LangGraphClient, thread_id: str) -> Any:
    thread: Any = await sdk.threads.get(thread_id)
    state: Any = await sdk.threads.get_state(thread_id)
    assert thread["values"] == state["values"]
    return thread["values"]["log"], thread["status"]


async def test_of_a_run_that_failed_midway(replica: Replica) -> None:
    sdk = sdk_of(talking_app(replica, agent=steps(one, fail)))
    thread_id = (await sdk.threads.create())["thread_id"]
    await sdk.runs.wait(thread_id, "agent", input=HI, raise_error=False)
    assert await _log(sdk, thread_id) == (["hi", "one"], "error")


async def test_of_a_run_that_was_cancelled_midway(replica: Replica) -> None:
    sdk = sdk_of(talking_app(replica, agent=steps(one, wait_for_ever)))
    thread_id = (await sdk.threads.create())["thread_id"]
    run = await sdk.runs.create(thread_id, "agent", input=HI)

    async def has_begun() -> bool:
        state: Any = await sdk.threads.get_state(thread_id)
        return bool(state["next"] == ["wait_for_ever"])

    await eventually(has_begun)
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert await _log(sdk, thread_id) == (["hi", "one"], "interrupted")


async def _orphaned(replica: Replica, thread_id: str, graph: Any) -> None:
    """A run of a replica that is gone: it got as far as `graph` gets."""
    run = NewRun(
        run_id=str(uuid4()),
        thread_id=thread_id,
        owner="gone",
        assistant_id="agent",
        kwargs={"graph_id": "agent"},
        thread_metadata={"graph_id": "agent"},
    )
    await replica.runs.admit(run, lease_seconds=0.01)
    config: Any = {"configurable": {"thread_id": thread_id, "run_id": run.run_id}}
    with contextlib.suppress(ValueError):
        await graph.copy(update={"checkpointer": replica.checkpointer}).ainvoke(HI, config)

    async def is_over() -> bool:
        await replica._manager.sweep_now()
        record = await replica.runs.get(run.run_id)
        return record is not None and record.status == "error"

    await eventually(is_over)


async def test_of_a_run_whose_replica_is_gone(replica: Replica) -> None:
    graph = steps(one, fail)
    sdk = sdk_of(talking_app(replica, agent=graph))
    thread_id = (await sdk.threads.create())["thread_id"]
    await _orphaned(replica, thread_id, graph)
    assert await _log(sdk, thread_id) == (["hi", "one"], "error")
    thread: Any = await sdk.threads.get(thread_id)
    assert thread["error"]["error"] == "RunOrphaned"


async def test_of_an_orphan_whose_state_cannot_be_read(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    """It ends all the same."""

    def broken() -> Any:
        raise RuntimeError("no graph today")

    sdk = sdk_of(talking_app(replica, agent=broken))
    thread_id = (await sdk.threads.create())["thread_id"]
    await _orphaned(replica, thread_id, steps(one, two))
    thread: Any = await sdk.threads.get(thread_id)
    assert (thread["status"], thread["values"]) == ("error", None)
    assert "no graph today" in caplog.text
