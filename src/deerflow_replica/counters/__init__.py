"""Model counters: calls, outcomes, tokens and votes by model, exact over all replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import ModelCounters
from .health import CircuitState, ModelHealth, Permit
from .inmemory import InMemoryModelCounters
from .opening import open_model_counters
from .outcome import Classification, classify
from .values import LatencyHistogram, ModelFeedbackRow, ModelTotals, ModelWindow

if TYPE_CHECKING:
    from .mongodb import MongoModelCounters
    from .postgres import PostgresModelCounters
    from .redis import RedisModelCounters
    from .sqlite import SqliteModelCounters

__all__ = [
    "CircuitState",
    "Classification",
    "InMemoryModelCounters",
    "LatencyHistogram",
    "ModelCounters",
    "ModelFeedbackRow",
    "ModelHealth",
    "ModelTotals",
    "ModelWindow",
    "MongoModelCounters",
    "Permit",
    "PostgresModelCounters",
    "RedisModelCounters",
    "SqliteModelCounters",
    "classify",
    "open_model_counters",
]


def __getattr__(name: str) -> Any:
    """Backends with a driver are imported when they are asked for."""
    if name == "MongoModelCounters":
        from .mongodb import MongoModelCounters

        return MongoModelCounters
    if name == "RedisModelCounters":
        from .redis import RedisModelCounters

        return RedisModelCounters
    if name == "PostgresModelCounters":
        from .postgres import PostgresModelCounters

        return PostgresModelCounters
    if name == "SqliteModelCounters":
        from .sqlite import SqliteModelCounters

        return SqliteModelCounters
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
