"""Counts as plain mappings: what adds up, and what they look like from outside.

A mapping has one entry for each thing that is not zero. Everything adds up but for the `MAXIMA`; names that this
version does not know (written by a newer replica) are kept and added like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .values import (
    FAILURE_KINDS,
    LATENCY_BOUNDS,
    FrozenCounts,
    LatencyHistogram,
    ModelFeedbackRow,
    ModelTotals,
    ModelWindow,
)

Counts = dict[str, Any]  # ints, so that sums are exact; floats only under MAXIMA

SECONDS = "latency.nanoseconds"
LONGEST = "latency.max_seconds"
UPDATED = "updated_at"
MAXIMA = frozenset({LONGEST, UPDATED})
LATENCY = tuple(f"latency.{index}" for index in range(len(LATENCY_BOUNDS) + 1))
FAILURE = {kind: f"failure.{kind}" for kind in FAILURE_KINDS}

_TOTALS = (
    "call_count", "success_count", "failure_count", "positive_feedback_count", "negative_feedback_count",
    "cancelled_count", "control_flow_count", "parse_error_count", "short_circuit_count", "calls_without_usage",
    "input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_creation_tokens", "reasoning_tokens",
)  # fmt: skip
_WINDOW = ("call_count", "success_count", "failure_count", "cancelled_count")


def add(into: Counts, counts: Mapping[str, Any]) -> None:
    for name, value in counts.items():
        into[name] = max(into.get(name, value), value) if name in MAXIMA else into.get(name, 0) + value


def subtract(into: Counts, counts: Mapping[str, Any]) -> None:
    for name, value in counts.items():
        if name not in MAXIMA:
            into[name] = into.get(name, 0) - value


def total(parts: Iterable[Mapping[str, Any]]) -> Counts:
    result: Counts = {}
    for part in parts:
        add(result, part)
    return result


def totals_of(model_name: str, counts: Mapping[str, Any]) -> ModelTotals:
    return ModelTotals(
        model_name=model_name,
        failures_by_kind=_failures_by_kind(counts),
        latency=_latency(counts),
        updated_at=counts.get(UPDATED),
        **{name: counts.get(name, 0) for name in _TOTALS},
    )


def row_of(totals: ModelTotals) -> ModelFeedbackRow:
    return ModelFeedbackRow(
        totals.model_name,
        totals.call_count,
        totals.success_count,
        totals.failure_count,
        totals.positive_feedback_count,
        totals.negative_feedback_count,
        totals.updated_at,
    )


def window_of(model_name: str, seconds: float, counts: Mapping[str, Any]) -> ModelWindow:
    return ModelWindow(
        model_name=model_name,
        seconds=seconds,
        failures_by_kind=_failures_by_kind(counts),
        latency=_latency(counts),
        **{name: counts.get(name, 0) for name in _WINDOW},
    )


def _failures_by_kind(counts: Mapping[str, Any]) -> FrozenCounts:
    return FrozenCounts({kind: counts[name] for kind, name in FAILURE.items() if counts.get(name)})


def _latency(counts: Mapping[str, Any]) -> LatencyHistogram:
    buckets = tuple(counts.get(name, 0) for name in LATENCY)
    return LatencyHistogram(
        count=sum(buckets),
        sum_seconds=counts.get(SECONDS, 0) / 1e9,
        max_seconds=float(counts.get(LONGEST, 0.0)),
        buckets=buckets,
    )
