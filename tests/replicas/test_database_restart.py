"""A database that restarts under a run: it waits, and the run does not fail."""

from __future__ import annotations

import asyncio

import pytest

from deerflow_replica._drivers.embedded import EmbeddedPostgres
from deerflow_replica.config import AppConfig
from deerflow_replica.replica import open_replica
from deerflow_replica.stream import StreamEvent
from replicas.worker import ticking

pytestmark = pytest.mark.anyio


async def test_runs_outlive_a_restart_of_the_database() -> None:
    with EmbeddedPostgres() as server:
        config = AppConfig.from_mapping(
            {
                "database": {"backend": "postgres", "postgres_url": server.dsn},
                "stream_bridge": {"queue_maxsize": 1000},
                "gateway": {"lease_seconds": 60},
            }
        )
        async with open_replica(config) as replica:
            graph = ticking(checkpointer=replica.checkpointer)
            runs = [
                await replica.start_run(
                    graph,
                    {"until": 80},
                    thread_id=f"t{number}",
                    stream_mode="custom",
                    config={"recursion_limit": 1000},
                )
                for number in range(8)
            ]
            events = replica.bridge.subscribe(runs[0].run_id, last_event_id="0-0")
            for _ in range(10):
                assert isinstance(await anext(events), StreamEvent)
            await events.aclose()
            for _ in range(3):
                await asyncio.to_thread(server.restart)
            assert [await run.wait() for run in runs] == ["success"] * 8
            state = await graph.aget_state({"configurable": {"thread_id": "t0"}})
            assert state.values["ticks"] == 80
