"""The official client without a network, and what tests do with it again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langgraph_sdk.client import LangGraphClient

from gateway.serving import in_process
from waiting import eventually

SLOW: dict[str, Any] = {"count": 400, "pause": 0.05}


@asynccontextmanager
async def client_of(app: Any, user: str | None = None) -> AsyncIterator[LangGraphClient]:
    """The official client of `user`, in this process."""
    async with in_process(app, user) as http:
        yield LangGraphClient(http)


async def status_of(client: LangGraphClient, thread_id: str, run_id: str, status: str, *, timeout: float = 60) -> None:
    """Wait until the run has this status."""

    async def has_it() -> bool:
        return (await client.runs.get(thread_id, run_id))["status"] == status

    await eventually(has_it, timeout=timeout, what=f"the run's being {status}")


async def started(client: LangGraphClient, **body: Any) -> tuple[str, str]:
    """A thread and a run on it that runs now, and for long."""
    thread_id = str((await client.threads.create())["thread_id"])
    run_id = str((await client.runs.create(thread_id, "agent", input=SLOW, **body))["run_id"])
    await status_of(client, thread_id, run_id, "running")
    return thread_id, run_id
