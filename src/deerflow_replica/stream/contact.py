"""Whether the server is there, and for how long it has not been: what the two connections of the readers share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..errors import StreamUnavailableError
from .hub import Hub

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Contact:
    """Ends the subscriptions that have waited for the server too long. `on_lost` is called for every failure."""

    def __init__(self, hub: Hub, on_lost: Callable[[], None], *, unavailable_after_seconds: float) -> None:
        self._hub = hub
        self._on_lost = on_lost
        self._limit_seconds = unavailable_after_seconds
        self._down_since: dict[str, float] = {}
        self.losses = 0
        self.generation = 0

    def is_lost(self, part: str) -> bool:
        return part in self._down_since

    def restored(self, part: str) -> None:
        self._down_since.pop(part, None)

    def renewed(self) -> None:
        """A connection was made anew: what answers may be another server, which lost what the last one told."""
        self.generation += 1

    def slipped(self, error: Exception) -> None:
        """One connection of many was lost; the reads tell whether the server is there."""
        self._on_lost()
        self.losses += 1
        _LOG.warning("%s; subscribers wait", error)

    def lost(self, part: str, error: StreamUnavailableError) -> None:
        now = asyncio.get_running_loop().time()
        self._on_lost()
        if part not in self._down_since:
            self._down_since[part] = now
            self.losses += 1
            _LOG.warning("%s; subscribers wait", error)
        down = now - self._down_since[part]
        for topic in self._hub.topics.values():
            for subscriber in topic.subscribers:
                if min(down, now - subscriber.started) >= self._limit_seconds:
                    subscriber.conclude(StreamUnavailableError(f"{error}; no contact for {self._limit_seconds} s"))


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    every = list(items)
    return (every[start : start + size] for start in range(0, len(every), size))
