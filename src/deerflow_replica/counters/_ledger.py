"""One process's own counts: arithmetic under a lock, and snapshots of what changed."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import StoreUnavailableError
from ._counts import FAILURE, LATENCY, LONGEST, SECONDS, UPDATED, Counts, add, total
from .values import LATENCY_BOUNDS

BUCKET_SECONDS = 10
KEPT_BUCKETS = 91  # 15 minutes, and the bucket that is being filled
BUCKETS_AHEAD = 6  # that a window takes: of a replica whose clock is a minute fast
OTHER = "__other__"
LONGEST_NAME = 256
LARGEST_COUNT = 2**63 - 1  # of what is added at once; a number without bound could not even be written as text

_INFINITY = float("inf")
_KEYS = {
    "success": ("call_count", "success_count"),
    "parse_error": ("call_count", "success_count", "parse_error_count"),
    "failure": ("call_count", "failure_count"),
    "cancelled": ("cancelled_count",),
    "control_flow": ("control_flow_count",),
    "short_circuit": ("short_circuit_count",),
}
_FAILURE_KEYS: dict[str | None, tuple[str, ...]] = {kind: (*_KEYS["failure"], name) for kind, name in FAILURE.items()}
_UNKNOWN_FAILURE = _FAILURE_KEYS["unknown"]
_ANSWERED = frozenset({"success", "parse_error"})
_FINISHED = frozenset({"success", "parse_error", "failure"})
_USAGE = ("input_tokens", "output_tokens", "total_tokens")
_USAGE_DETAILS = (
    ("input_token_details", (("cache_read", "cache_read_tokens"), ("cache_creation", "cache_creation_tokens"))),
    ("output_token_details", (("reasoning", "reasoning_tokens"),)),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Absolute counts of one model in one replica: its total (bucket 0), or what fell into one 10-second bucket.

    A bucket is numbered by epoch seconds divided by 10.
    """

    bucket: int
    model_name: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that changed since the last one. A higher `number` is newer; `events` counts all events up to it."""

    number: int
    events: int
    rows: tuple[Row, ...]
    saved_from: Mapping[str, int]


class _Tally:
    """One model's counts: what is settled, and the bucket being filled (which is not in it yet)."""

    __slots__ = ("bucket", "closed", "current", "dirty", "name", "saved_from", "settled")

    def __init__(self, name: str) -> None:
        self.name = name
        self.settled: Counts = {}
        self.bucket = 0
        self.current: defaultdict[str, Any] = defaultdict(int)
        self.closed: dict[int, Counts] = {}
        self.saved_from = 0
        self.dirty = False

    def roll(self, bucket: int) -> defaultdict[str, Any]:
        """Begin another bucket. A clock set back merges into the one that was closed before."""
        if self.bucket:
            add(self.settled, self.current)
            self.closed[self.bucket] = total((self.closed.get(self.bucket, {}), self.current))
        self.bucket = bucket
        self.saved_from = min(self.saved_from, bucket)
        self.closed = {kept: counts for kept, counts in self.closed.items() if kept > bucket - KEPT_BUCKETS}
        self.current = defaultdict(int)
        return self.current

    def total(self) -> Counts:
        return total((self.settled, self.current))

    def buckets(self, first: int) -> list[tuple[int, Counts]]:
        """From the bucket `first` on. What is closed never changes, so only what is being filled is copied."""
        found = {bucket: counts for bucket, counts in self.closed.items() if bucket >= first}
        if self.current and self.bucket >= first:
            found[self.bucket] = total((found.get(self.bucket, {}), self.current))
        return list(found.items())


class Ledger:
    """Counts by model. Thread-safe; nothing here waits for anything but the lock, which is never held for long.

    `changed` is set when `flush_max_events` events wait for a snapshot; who waits for it clears it.
    """

    def __init__(self, *, max_models: int, flush_max_events: int, clock: Callable[[], float] = time.time) -> None:
        self.changed = threading.Event()
        self.events = 0
        self._clock = clock
        self._max_models = max_models
        self._flush_max_events = flush_max_events
        self._lock = threading.Lock()
        self._tallies: dict[str, _Tally] = {}
        self._dirty: list[_Tally] = []
        self._snapshot_events = 0
        self._number = 0
        self._closed = False

    def record(
        self,
        model_name: str,
        outcome: str,
        duration_seconds: float | None,
        usage: Mapping[str, Any] | None,
        error_type: str | None,
    ) -> str:
        """Count one event; the name that it was counted under."""
        keys = _keys(outcome, error_type)
        duration = _checked_duration(duration_seconds) if duration_seconds is not None else None
        finished = outcome in _FINISHED
        known = usage if usage is not None and (type(usage) is dict or isinstance(usage, Mapping)) else None
        tokens = _tokens(known) if finished and known is not None else ()
        now = self._clock()
        bucket = int(now) // BUCKET_SECONDS
        with self._lock:
            tally = self._tally(model_name)
            counts = tally.current if tally.bucket == bucket else tally.roll(bucket)
            for key in keys:
                counts[key] += 1
            if finished:
                if duration is not None:
                    counts[LATENCY[bisect_left(LATENCY_BOUNDS, duration)]] += 1
                    counts[SECONDS] += _nanoseconds(duration)
                    if duration > counts[LONGEST]:
                        counts[LONGEST] = duration
                for key, number in tokens:
                    counts[key] += number
                if known is None and outcome in _ANSWERED:
                    counts["calls_without_usage"] += 1
            counts[UPDATED] = now
            self._touched(tally)
        return tally.name

    def increment(self, model_name: str, deltas: Mapping[str, int]) -> None:
        """Add to the total only: this is no traffic."""
        with self._lock:
            tally = self._tally(model_name)
            add(tally.settled, {**deltas, UPDATED: self._clock()})
            self._touched(tally)

    def close(self) -> None:
        """Every later `record` and `increment` raises."""
        with self._lock:
            self._closed = True

    def totals(self) -> dict[str, Counts]:
        with self._lock:
            return {name: tally.total() for name, tally in self._tallies.items()}

    def window(self, first_bucket: int, last_bucket: int) -> dict[str, list[Counts]]:
        with self._lock:
            return {
                name: [counts for bucket, counts in tally.buckets(first_bucket) if bucket <= last_bucket]
                for name, tally in self._tallies.items()
            }

    def snapshot(self, *, everything: bool = False) -> Snapshot:
        """What changed since the last snapshot, ordered by bucket and name; `restore` it if it could not be stored."""
        with self._lock:
            dirty = list(self._tallies.values()) if everything else self._dirty
            saved_from = {tally.name: tally.saved_from for tally in dirty}
            oldest = oldest_bucket(self._clock())
            rows = [row for tally in dirty for row in _rows(tally, oldest)]
            for tally in dirty:
                tally.dirty, tally.saved_from = False, tally.bucket
            self._dirty = []
            self._snapshot_events = self.events
            self._number += 1
            rows.sort(key=lambda row: (row.bucket, row.model_name))
            return Snapshot(self._number, self.events, tuple(rows), saved_from)

    def restore(self, snapshot: Snapshot) -> None:
        """The snapshot was not stored: its rows belong to the next one."""
        with self._lock:
            for name, saved_from in snapshot.saved_from.items():
                tally = self._tallies[name]
                tally.saved_from = min(tally.saved_from, saved_from)
                if not tally.dirty:
                    tally.dirty = True
                    self._dirty.append(tally)

    def _tally(self, model_name: str) -> _Tally:
        if self._closed:
            raise StoreUnavailableError("the model counters are closed")
        try:
            return self._tallies[model_name]
        except (KeyError, TypeError):
            return self._tally_of(checked_name(model_name))

    def _tally_of(self, name: str) -> _Tally:
        known = self._tallies
        if name not in known:
            if name != OTHER and len(known) - (OTHER in known) >= self._max_models:
                name = OTHER
            known.setdefault(name, _Tally(name))
        return known[name]

    def _touched(self, tally: _Tally) -> None:
        if not tally.dirty:
            tally.dirty = True
            self._dirty.append(tally)
        self.events += 1
        if self.events - self._snapshot_events == self._flush_max_events:
            self.changed.set()


def oldest_bucket(now: float) -> int:
    """The first bucket that a window can still reach."""
    return int(now) // BUCKET_SECONDS - KEPT_BUCKETS


def checked_name(model_name: object) -> str:
    """The stripped name, or `ValueError`."""
    name = model_name.strip() if isinstance(model_name, str) else ""
    if not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(f"a model's name is a string of 1 to {LONGEST_NAME} characters, not {model_name!r:.300}")
    return name


def _rows(tally: _Tally, oldest: int) -> list[Row]:
    buckets = tally.buckets(max(tally.saved_from, oldest))
    return [Row(0, tally.name, tally.total()), *(Row(bucket, tally.name, counts) for bucket, counts in buckets)]


def _keys(outcome: str, error_type: str | None) -> tuple[str, ...]:
    try:
        if outcome == "failure":
            return _FAILURE_KEYS.get(error_type, _UNKNOWN_FAILURE)
        return _KEYS[outcome]
    except (KeyError, TypeError):  # a TypeError: not hashable
        if outcome == "failure":
            return _UNKNOWN_FAILURE
        raise ValueError(f"unknown outcome {outcome!r}; there are {', '.join(_KEYS)}") from None


def _checked_duration(seconds: float) -> float:
    try:
        if 0.0 <= seconds < _INFINITY:
            return float(seconds)
    except (TypeError, OverflowError):
        pass
    raise ValueError(f"a duration is a finite number of seconds, not negative: {seconds!r}")


def _nanoseconds(seconds: float) -> int:
    """Whole, so that sums are exact; no call lasts 30,000 years, and a sum must stay a number."""
    return round(min(seconds, 1e12) * 1e9)


def _tokens(usage: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Only what is a count: one infinity in a sum could never be stored, nor taken out again."""
    found = []
    for name in _USAGE:
        number = usage.get(name)
        if type(number) is int and 0 < number <= LARGEST_COUNT:
            found.append((name, number))
    for group, names in _USAGE_DETAILS:
        details = usage.get(group)
        if details and isinstance(details, dict):
            for name, key in names:
                number = details.get(name)
                if type(number) is int and 0 < number <= LARGEST_COUNT:
                    found.append((key, number))
    return found
