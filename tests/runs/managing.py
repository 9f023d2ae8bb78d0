"""Run managers for tests, what they are asked to run, and what it left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from deerflow_replica.runs.manager import RunManager
from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.records import RunStatus
from deerflow_replica.runs.request import RunRequest, opened
from deerflow_replica.stream import StreamBridge, StreamEvent
from waiting import eventually


def request(graph: Any, run_id: str = "r", thread_id: str = "t", **fields: Any) -> RunRequest:
    configurable = {"thread_id": thread_id, "run_id": run_id}
    asked: dict[str, Any] = {"input": {}, "config": {"configurable": configurable}, **fields}
    return RunRequest(open_graph=opened(graph), thread_id=thread_id, run_id=run_id, **asked)


@asynccontextmanager
async def managing(
    bridge: StreamBridge, registry: RunRegistry, replica_id: str = "one", **options: Any
) -> AsyncIterator[RunManager]:
    manager = RunManager(bridge, registry, replica_id=replica_id, **options)
    await manager.open()
    try:
        yield manager
    finally:
        await manager.close()


async def became(registry: RunRegistry, run_id: str, status: RunStatus) -> None:
    async def has() -> bool:
        record = await registry.get(run_id)
        return record is not None and record.status == status

    await eventually(has)


async def events_of(bridge: StreamBridge, run_id: str) -> list[str]:
    """The names of all events up to END, which must be there soon."""
    async with asyncio.timeout(60):
        items = [item async for item in bridge.subscribe(run_id, last_event_id="0-0")]
    return [item.event for item in items[:-1] if isinstance(item, StreamEvent)]


async def history(saver: BaseCheckpointSaver[Any], thread_id: str = "t") -> list[Any]:
    """Everything that a saver knows of a thread, but for what it made of its own objects."""
    config: Any = {"configurable": {"thread_id": thread_id}}
    return [
        (saved.config, saved.checkpoint, saved.metadata, saved.parent_config, saved.pending_writes)
        async for saved in saver.alist(config)
    ]
