"""What a kind of store does for `ModelCounters`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .._sync import Runner
from ._circuit import Circuit, StoredCircuit
from ._fleet import StoredRow, Vote
from ._ledger import Snapshot


class Backend(ABC):
    _runner: Runner
    _is_shared = True
    """Whether other processes may count in the same place."""

    @abstractmethod
    async def _open(self) -> None:
        """Connect and create what is missing."""

    @abstractmethod
    async def _shut(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def _write(self, snapshot: Snapshot) -> None:
        """Store these rows of this boot id, each only over a lower number; drop its buckets that are too old."""

    @abstractmethod
    async def _read_rows(self, first_bucket: int, last_bucket: int) -> list[StoredRow]:
        """Every replica's rows of these buckets, as of one moment."""

    @abstractmethod
    async def _read_votes(self) -> list[StoredRow]:
        """The sums of the votes, one row for each model."""

    @abstractmethod
    async def _vote(self, vote: Vote) -> bool:
        """Store or remove one vote; whether that changed anything."""

    @abstractmethod
    async def _fold(self, dead_after_seconds: float) -> int:
        """Fold total rows into the base row, keep what was folded, drop what is too old to come back."""

    @abstractmethod
    async def _read_circuits(self) -> tuple[float, dict[str, StoredCircuit]]:
        """The store's time, in epoch seconds, and every model's circuit that was ever written."""

    @abstractmethod
    async def _swap_circuit(self, model_name: str, version: int, circuit: Circuit) -> bool:
        """Write the circuit as version + 1 if its version is `version` (0: nobody wrote it); whether it was."""
