"""A real replica in a process that can be killed or stopped, and what is seen of its runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deerflow_replica.replica import Replica
from deerflow_replica.stream import END_SENTINEL, StreamEvent

WORKER = Path(__file__).with_name("worker.py")
Settings = dict[str, Any]


def shared_settings(dsn: str, schema: str, redis_url: str, key_prefix: str, folder: Path) -> Settings:
    return {
        "database": {"backend": "postgres", "postgres_url": dsn, "postgres_schema": schema},
        "stream_bridge": {
            "type": "redis", "redis_url": redis_url, "key_prefix": key_prefix, "queue_maxsize": 100_000
        },
        "memory": {"backend_config": {"storage_path": str(folder)}},
        "gateway": {"lease_seconds": 4.0},
        "replica": {"shutdown_grace_seconds": 0, "connect_timeout_seconds": 60},
    }  # fmt: skip


@asynccontextmanager
async def worker(
    settings: Settings, *, until: int, waiting: int = 0
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A replica that executes a run of thread `t`, with others that wait behind it; the process and the run's id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), json.dumps(settings), "t", str(until), str(waiting),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        run_id = (await process.stdout.readline()).decode().strip()
        assert run_id
        yield process, run_id
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ticked(replica: Replica, run_id: str, number: int) -> None:
    async for item in replica.bridge.subscribe(run_id):
        if isinstance(item, StreamEvent) and item.data == {"tick": number}:
            return
    raise AssertionError("the run ended too early")


async def everything(replica: Replica, run_id: str) -> list[StreamEvent]:
    items = [item async for item in replica.bridge.subscribe(run_id, last_event_id="0-0")]
    assert items.pop() is END_SENTINEL
    assert all(isinstance(item, StreamEvent) for item in items)
    return items  # type: ignore[return-value]  # no gap is among them
