"""The values that counters give out. All of them are immutable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["success", "parse_error", "failure", "cancelled", "control_flow", "short_circuit"]
FailureKind = Literal["transient", "rate_limit", "auth", "request", "unknown"]
Sentiment = Literal["positive", "negative"]
Durability = Literal["batched", "sync"]
State = Literal["closed", "open", "half_open"]
ReleaseOutcome = Literal["success", "failure", "abandoned"]

FAILURE_KINDS: tuple[FailureKind, ...] = ("transient", "rate_limit", "auth", "request", "unknown")
LATENCY_BOUNDS: tuple[float, ...] = tuple(0.01 * 2**power for power in range(17))


class FrozenCounts(Mapping[str, int]):
    """A read-only mapping of names to counts; it can be copied, pickled, hashed and compared with any mapping."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = dict(counts)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __hash__(self) -> int:
        return hash(frozenset(self._counts.items()))

    def __repr__(self) -> str:
        return repr(self._counts)


@dataclass(frozen=True, slots=True)
class LatencyHistogram:
    """Durations of finished calls, in seconds.

    `buckets` holds 18 counts, each of its own range and not cumulative: a value falls into the first of the bounds
    `0.01 * 2**i` (i = 0 to 16) that is not below it, the last bucket has what is above 655.36 s.
    """

    count: int
    sum_seconds: float
    max_seconds: float
    buckets: tuple[int, ...]

    def quantile(self, q: float) -> float | None:
        """An estimate of the q-th quantile in seconds (0 <= q <= 1), None without calls.

        Linear inside a bucket, never above the longest call seen. `ValueError` for another `q`.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, not {q!r}")
        if not self.count:
            return None
        rank, below = q * self.count, 0
        for index, inside in enumerate(self.buckets):
            if inside and below + inside >= rank:
                return self._inside(index, (rank - below) / inside)
            below += inside
        return self.max_seconds

    def _inside(self, index: int, share: float) -> float:
        low = LATENCY_BOUNDS[index - 1] if index else 0.0
        high = LATENCY_BOUNDS[index] if index < len(LATENCY_BOUNDS) else self.max_seconds
        return min(low + (high - low) * share, self.max_seconds)


@dataclass(frozen=True, slots=True)
class ModelTotals:
    """Everything ever counted for one model. `failures_by_kind` has no zeros; `updated_at` is in epoch seconds."""

    model_name: str
    call_count: int
    success_count: int
    failure_count: int
    positive_feedback_count: int
    negative_feedback_count: int
    cancelled_count: int
    control_flow_count: int
    parse_error_count: int
    short_circuit_count: int
    calls_without_usage: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    reasoning_tokens: int
    failures_by_kind: Mapping[str, int]
    latency: LatencyHistogram
    updated_at: float | None


@dataclass(frozen=True, slots=True)
class ModelWindow:
    """What was recorded for one model in the last `seconds` (and up to 10 more)."""

    model_name: str
    seconds: float
    call_count: int
    success_count: int
    failure_count: int
    cancelled_count: int
    failures_by_kind: Mapping[str, int]
    latency: LatencyHistogram

    @property
    def failure_rate(self) -> float:
        """Failures per call, 0.0 without calls."""
        return self.failure_count / self.call_count if self.call_count else 0.0


@dataclass(frozen=True, slots=True)
class ModelFeedbackRow:
    """One line of `list_rows`. `updated_at` is in epoch seconds."""

    model_name: str
    call_count: int
    success_count: int
    failure_count: int
    positive_feedback_count: int
    negative_feedback_count: int
    updated_at: float | None = None


@dataclass(frozen=True, slots=True)
class CircuitState:
    """One model's circuit as this process knows it.

    `reason` is `consecutive_failures, failure_rate, rate_limit` or `auth`; `open_until` is in epoch seconds of the
    store's clock; `opened_count` is how often in a row it opened; `consecutive_failures` are those seen here.
    """

    model_name: str
    state: State = "closed"
    reason: str | None = None
    opened_count: int = 0
    open_until: float | None = None
    consecutive_failures: int = 0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to call a model. `probe`: the only one in the fleet, to be released; `forced`: no model is well."""

    model_name: str
    probe: bool = False
    forced: bool = False
    token: str | None = None
