"""Who hears of every event that is counted: the models' health, and exporters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from ._flusher import Flusher

_LOG = logging.getLogger(__name__)


class Hear(Protocol):
    """Called on the thread that counts, so it does no I/O."""

    def __call__(
        self,
        name: str,
        outcome: str,
        duration_seconds: float | None,
        usage: Mapping[str, Any] | None,
        error_type: str | None,
        retry_after_seconds: float | None,
        /,
    ) -> None: ...


class Followers:
    """False while there are none. What one of them raises is logged: the event is counted all the same."""

    def __init__(self) -> None:
        self._hearing: tuple[Hear, ...] = ()
        self._waiting: list[Flusher] = []
        self._running: list[Flusher] = []

    def __bool__(self) -> bool:
        return bool(self._hearing)

    def add(self, hear: Hear, worker: Flusher | None) -> None:
        self._hearing = (*self._hearing, hear)
        if worker is not None:
            self._waiting.append(worker)

    def remove(self, hear: Hear) -> None:
        self._hearing = tuple(one for one in self._hearing if one is not hear)

    def tell(self, *event: Any) -> None:
        for hear in self._hearing:
            try:
                hear(*event)
            except Exception:
                _LOG.exception("a counted model call could not be passed on")

    def start(self) -> None:
        while self._waiting:
            worker = self._waiting.pop()
            worker.start()
            self._running.append(worker)

    def stop(self) -> None:
        for worker in self._running:
            worker.stop()

    def join(self) -> None:
        for worker in self._running:
            worker.join()
