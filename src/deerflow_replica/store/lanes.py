"""How many units of each lane may run, so that what is slow holds up nothing that is quick."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from enum import IntEnum

_LATELY_SECONDS = 1.0
_SLOW_SECONDS = 0.01
_SLOW_FOR_SECONDS = 5.0


class Lane(IntEnum):
    """Of numbers, which are found in a mapping several times faster than other members."""

    GET = 0
    SCAN = 1
    WRITE = 2


_KEEPS_FREE = {Lane.GET: (), Lane.SCAN: (Lane.GET, Lane.WRITE), Lane.WRITE: (Lane.GET,)}
"""The lanes that each leaves a slot, when they were used lately and there are that many."""


class Slots:
    """`count` of them in all. `clock` is the loop's."""

    def __init__(self, count: int, clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock
        self._busy: Counter[Lane] = Counter()
        self._busy_in_all = 0
        self._used_at = dict.fromkeys(Lane, -math.inf)
        self._scans_slow_until = math.inf  # until one was quick

    def use(self, lane: Lane) -> None:
        """Somebody calls."""
        self._used_at[lane] = self._clock()

    def has_free(self, lane: Lane) -> bool:
        """Whether one more unit of a lane may begin."""
        return not self._busy_in_all or self.free(lane) > 0

    def free(self, lane: Lane) -> int:
        """How many more units of a lane may begin."""
        since = self._clock() - _LATELY_SECONDS
        kept = sum(self._used_at[other] > since for other in _KEEPS_FREE[lane])
        return min(self._count - self._busy_in_all, max(1, self._count - kept) - self._busy[lane])

    def share(self, waiting: int) -> int:
        """How many of the scans that wait go together. Slow ones are spread: beside them a round trip is nothing."""
        if self._clock() > self._scans_slow_until:
            return waiting
        return math.ceil(waiting / max(1, self.free(Lane.SCAN)))

    def begin(self, lane: Lane) -> None:
        self._busy[lane] += 1
        self._busy_in_all += 1

    def end(self, lane: Lane, seconds_each: float) -> None:
        self._busy[lane] -= 1
        self._busy_in_all -= 1
        if lane is Lane.SCAN:
            if seconds_each > _SLOW_SECONDS:
                self._scans_slow_until = self._clock() + _SLOW_FOR_SECONDS
            elif self._scans_slow_until == math.inf:
                self._scans_slow_until = self._clock()
