"""Expired items are deleted by one replica at a time, in small steps."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

from ..errors import ReplicaError

logger = logging.getLogger(__name__)

STEP = 1000


class Sweeper:
    """Sweeps when asked, and in the background between `start` and `stop`."""

    def __init__(self, sweep: Callable[[], Awaitable[int | None]]) -> None:
        """`sweep` deletes up to `STEP` items: how many, or None while another replica does."""
        self._sweep = sweep
        self._lock = threading.Lock()
        self._task: asyncio.Task[None] | None = None
        self._stopped = threading.Event()

    async def sweep(self) -> int:
        swept = 0
        while True:
            step = await self._sweep() or 0
            swept += step
            if step < STEP:
                return swept

    def start(self, interval_seconds: float) -> None:
        """On the running loop, unless it has started already."""
        with self._lock:
            if self._task is None or self._task.done() or self._task.get_loop().is_closed():
                self._stopped = threading.Event()
                self._task = asyncio.get_running_loop().create_task(self._run(interval_seconds, self._stopped))

    async def stop(self, timeout: float | None = None) -> bool:
        """From any loop."""
        task, stopped = self._taken()
        if task is None:
            return True
        if task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=timeout)
            return bool(done)
        self._cancel(task)
        return await asyncio.to_thread(stopped.wait, timeout)

    def stop_sync(self, timeout: float | None) -> bool:
        """From a thread beside the loop."""
        task, stopped = self._taken()
        if task is None:
            return True
        self._cancel(task)
        return stopped.wait(timeout)

    def _taken(self) -> tuple[asyncio.Task[None] | None, threading.Event]:
        with self._lock:
            task, self._task = self._task, None
        is_over = task is None or task.done() or not task.get_loop().is_running()
        return (None if is_over else task), self._stopped

    def _cancel(self, task: asyncio.Task[None]) -> None:
        task.get_loop().call_soon_threadsafe(task.cancel)

    async def _run(self, interval_seconds: float, stopped: threading.Event) -> None:
        try:
            while True:
                await asyncio.sleep(interval_seconds)
                try:
                    await self.sweep()
                except ReplicaError as error:
                    logger.warning("expired items could not be swept: %s", error)
        finally:
            stopped.set()
