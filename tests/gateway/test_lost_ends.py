"""Streams whose END was appended for a replica that is gone: their readers are told what the run's row says."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from deerflow_replica.runs.registry import rules
from deerflow_replica.runs.registry.records import NewRun
from gateway.serving import in_process
from gateway.wire import data_of, joined
from waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["orphaned", "failed", "successful", "rolled back"])
async def test_only_a_failed_run_ends_with_an_error(replica: Replica, graphs: dict[str, Any], how: str) -> None:
    run_id, thread_id = str(uuid4()), str(uuid4())
    lost = NewRun(run_id=run_id, thread_id=thread_id, owner="gone")
    lease = (await replica.runs.admit(lost, lease_seconds=0.3 if how == "orphaned" else 60)).lease
    await replica.bridge.publish(run_id, "custom", 1)
    async with in_process(create_app(replica, graphs)) as client:
        url = f"/threads/{thread_id}/runs/{run_id}/stream"
        reading = asyncio.create_task(joined(client, url, "-1"))
        await eventually(lambda: replica.bridge.stats().subscribers)
        if how == "rolled back":
            assert await replica.runs.roll_back(lease)
        elif how != "orphaned":
            failed = rules.failed({"error": "E", "message": "m"})
            assert await replica.runs.finish(lease, failed if how == "failed" else rules.succeeded(None, {}))
        await replica.bridge.publish_end(run_id, reason="orphaned")
        frames = await reading
    assert frames[0]["event"] == "custom"
    told = [data_of(frame)["error"] for frame in frames[1:]]
    assert told == {"orphaned": ["RunOrphaned"], "failed": ["E"]}.get(how, [])
