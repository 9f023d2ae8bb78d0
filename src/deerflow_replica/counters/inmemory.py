"""Model counters of one process, without a server."""

from __future__ import annotations

import threading
import time
from typing import Any

from .._sync import InlineRunner
from ._circuit import NEVER_OPENED, Circuit, StoredCircuit
from ._counts import UPDATED, Counts, add
from ._fleet import BASE, StoredRow, Vote
from ._ledger import Snapshot
from .base import ModelCounters


class InMemoryModelCounters(ModelCounters):
    """Counts and votes live and end with this object. It needs no `setup`, and there is nothing to flush."""

    _is_shared = False

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self._runner = InlineRunner()
        self._state = "open"
        self._votes: dict[str, tuple[Vote, float]] = {}
        self._circuits: dict[str, StoredCircuit] = {}
        self._swapping = threading.Lock()

    async def _open(self) -> None:
        """Open from the start."""

    async def _shut(self) -> None:
        self._votes.clear()

    async def _written(self, *, everything: bool = False) -> None:
        """There is no other place."""

    async def _write(self, snapshot: Snapshot) -> None:
        """There is no other place."""

    async def _read_rows(self, first_bucket: int, last_bucket: int) -> list[StoredRow]:
        return []

    async def _read_votes(self) -> list[StoredRow]:
        sums: dict[str, Counts] = {}
        for vote, voted_at in list(self._votes.values()):
            column = "positive_feedback_count" if vote.sentiment == 1 else "negative_feedback_count"
            add(sums.setdefault(vote.model_name, {}), {column: 1, UPDATED: voted_at})
        return [StoredRow(BASE, name, counts) for name, counts in sums.items()]

    async def _vote(self, vote: Vote) -> bool:
        if vote.sentiment is None:
            return self._votes.pop(vote.key, None) is not None
        before, _ = self._votes.get(vote.key, (None, 0.0))
        if before == vote:
            return False
        self._votes[vote.key] = (vote, time.time())
        return True

    async def _fold(self, dead_after_seconds: float) -> int:
        return 0

    async def _read_circuits(self) -> tuple[float, dict[str, StoredCircuit]]:
        return time.time(), dict(self._circuits)

    async def _swap_circuit(self, model_name: str, version: int, circuit: Circuit) -> bool:
        with self._swapping:
            is_as_read = self._circuits.get(model_name, NEVER_OPENED).version == version
            if is_as_read:
                self._circuits[model_name] = StoredCircuit(version + 1, circuit)
            return is_as_read
