"""One timer for all heartbeats of a bridge."""

from __future__ import annotations

import asyncio
import heapq
import math
from itertools import count
from typing import Protocol

_EARLY_SECONDS = 0.001  # a loop may fire a timer within its clock's resolution


class Waiter(Protocol):
    """Somebody who wants `beat()` at `deadline` if it still waits then. Its deadlines only grow."""

    deadline: float
    scheduled: bool

    @property
    def is_waiting(self) -> bool: ...

    def beat(self) -> None: ...


class Heartbeats:
    """A waiter has at most one place in the queue; one that waits anew meanwhile is looked at again when it is due."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Waiter]] = []
        self._order = count()
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self, waiter: Waiter) -> None:
        if waiter.scheduled or waiter.deadline == math.inf:
            return
        waiter.scheduled = True
        heapq.heappush(self._queue, (waiter.deadline, next(self._order), waiter))
        self._arm()

    def forget(self, waiter: Waiter) -> None:
        """It left; a deadline far away must not keep it alive."""
        if not waiter.scheduled:
            return
        waiter.scheduled = False
        self._left += 1
        if self._left * 2 > len(self._queue):
            self._queue = [place for place in self._queue if place[2].scheduled]
            heapq.heapify(self._queue)
            self._left = 0

    def stop(self) -> None:
        """Nobody waits any more."""
        for _, _, waiter in self._queue:
            waiter.scheduled = False
        self._queue.clear()
        self._left = 0
        self._disarm()

    def _arm(self) -> None:
        due = self._queue[0][0]
        if self._timer is not None and self._timer.when() <= due:
            return
        self._disarm()
        self._timer = asyncio.get_running_loop().call_at(due, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() + _EARLY_SECONDS
        while self._queue and self._queue[0][0] <= now:
            _, _, waiter = heapq.heappop(self._queue)
            self._left -= not waiter.scheduled
            waiter.scheduled = False
            if not waiter.is_waiting:
                continue
            if waiter.deadline <= now:
                waiter.beat()
            else:
                self.schedule(waiter)
        if self._queue:
            self._arm()
