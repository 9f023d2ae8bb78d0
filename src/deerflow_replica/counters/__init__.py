"""Model counters: calls, outcomes, tokens and votes by model, exact over all replicas."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import ModelCounters
from .health import ModelHealth
from .inmemory import InMemoryModelCounters
from .opening import open_model_counters
from .outcome import Classification, classify
from .values import CircuitState, LatencyHistogram, ModelFeedbackRow, ModelTotals, ModelWindow, Permit

if TYPE_CHECKING:
    from .exporters.otel import otel_metrics
    from .exporters.prometheus import prometheus_metrics
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
    "otel_metrics",
    "prometheus_metrics",
]


def __getattr__(name: str) -> Any:
    """What needs a driver or another library is imported when it is asked for."""
    homes = {
        "MongoModelCounters": ".mongodb",
        "PostgresModelCounters": ".postgres",
        "RedisModelCounters": ".redis",
        "SqliteModelCounters": ".sqlite",
        "otel_metrics": ".exporters.otel",
        "prometheus_metrics": ".exporters.prometheus",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(homes[name], __name__), name)
