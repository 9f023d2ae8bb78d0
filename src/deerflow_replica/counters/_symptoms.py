"""What one process sees of ill models, and how far back the fleet's calls speak against one."""

from __future__ import annotations

import threading
import time

from ._circuit import Circuit
from ._ledger import BUCKET_SECONDS
from .values import ModelWindow

_AGAINST = ("transient", "unknown")
_SHORTEST_WINDOW_SECONDS = 10.0
_CLOCKS_DIFFER_SECONDS = 2.0


class Symptoms:
    """Failures that count against a model, since its last answer and lately. Thread-safe; calls nobody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_a_row: dict[str, int] = {}
        self._failed_at: dict[str, float] = {}  # monotonic

    def in_a_row(self, name: str) -> int:
        return self._in_a_row.get(name, 0)

    def failed(self, name: str) -> int:
        """How many in a row that makes."""
        with self._lock:
            self._failed_at[name] = time.monotonic()
            self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
            return self._in_a_row[name]

    def answered(self, name: str) -> None:
        if name in self._in_a_row:  # mostly it is not, and then nobody waits
            with self._lock:
                self._in_a_row.pop(name, None)

    def lately(self, seconds: float) -> list[str]:
        """The models that failed within the last `seconds`; the others are forgotten."""
        oldest = time.monotonic() - seconds
        with self._lock:
            self._failed_at = {name: at for name, at in self._failed_at.items() if at > oldest}
            return list(self._failed_at)


def is_against(kind: str | None) -> bool:
    """Whether a failure of this kind is one that counts; what is none of the five kinds is `unknown`."""
    return kind not in ("rate_limit", "auth", "request")


def speaks_against(window: ModelWindow, *, failure_rate: float, min_calls: int) -> bool:
    failures = sum(window.failures_by_kind.get(kind, 0) for kind in _AGAINST)
    return window.call_count >= min_calls and failures >= failure_rate * window.call_count


def seconds_to_look_at(circuit: Circuit, now: float, longest: float) -> float | None:
    """Of what came before a circuit closed nothing counts, and only whole buckets are known to come after."""
    if circuit.open_until is not None:
        return None
    if not circuit.closed_at:
        return longest
    first_whole_bucket = (circuit.closed_at // BUCKET_SECONDS + 1) * BUCKET_SECONDS
    seconds = min(longest, now - first_whole_bucket - _CLOCKS_DIFFER_SECONDS)
    return seconds if seconds >= _SHORTEST_WINDOW_SECONDS else None
