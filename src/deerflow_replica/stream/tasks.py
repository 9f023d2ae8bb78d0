"""Tasks that end when they are told to."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether this task was told to end.

    A loop asks, as `asyncio.wait_for` of Python 3.11, on which the driver stands, can lose the cancellation itself.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
