"""The background task of LangGraph's stores."""

from __future__ import annotations

import asyncio
from typing import Any


async def stop_batching(store: Any) -> None:
    """LangGraph cancels the task when the store is collected, and nobody waits for it: a closed replica leaves none."""
    task = store._task
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
