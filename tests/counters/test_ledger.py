"""The arithmetic of one process: buckets, and snapshots that are stored or not."""

from __future__ import annotations

from typing import Any

import pytest

from deerflow_replica.counters._counts import total, totals_of
from deerflow_replica.counters._ledger import BUCKETS_AHEAD, KEPT_BUCKETS, Ledger, Snapshot


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Fixture:
    def __init__(self) -> None:
        self.clock = Clock()
        self.ledger = Ledger(max_models=256, flush_max_events=256, clock=self.clock)

    def call(self, name: str = "m") -> None:
        self.ledger.record(name, "success", 0.1, {"total_tokens": 1}, None)

    def calls(self) -> int:
        return int(self.ledger.totals()["m"]["call_count"])

    def calls_since(self, seconds: float) -> int:
        return sum(counts["call_count"] for counts in self.buckets_from(int(self.clock.now - seconds) // 10))

    def buckets_from(self, first: int) -> list[dict[str, Any]]:
        return self.ledger.window(first, int(self.clock.now) // 10 + BUCKETS_AHEAD).get("m", [])


def calls_of(snapshot: Snapshot) -> dict[Any, int]:
    return {(row.bucket, row.model_name): row.counts["call_count"] for row in snapshot.rows}


def test_a_call_leaves_the_window_at_most_10_seconds_late() -> None:
    at = Fixture()
    at.call()
    at.clock.now += 60
    assert at.calls_since(60) == 1
    at.clock.now += 10
    assert at.calls_since(60) == 0
    assert at.calls() == 1


def test_buckets_older_than_any_window_are_forgotten_and_totals_are_not() -> None:
    at = Fixture()
    for _ in range(KEPT_BUCKETS * 2):
        at.call()
        at.clock.now += 10
    at.clock.now -= 10
    assert at.calls_since(900) == 91, "15 minutes, and the bucket that is being filled"
    assert sum(bucket > 0 for bucket, _ in calls_of(at.ledger.snapshot())) == 91
    at.clock.now += 10
    assert at.calls() == KEPT_BUCKETS * 2
    assert at.calls_since(900) == 90
    assert len(at.buckets_from(0)) <= KEPT_BUCKETS + 1


def test_a_clock_set_back_loses_nothing() -> None:
    at = Fixture()
    for step in (10, -25, 10, 30, -10, 0):
        at.call()
        at.clock.now += step
    assert at.calls() == 6
    assert total(at.buckets_from(0))["call_count"] == 6
    assert calls_of(at.ledger.snapshot())[0, "m"] == 6


def test_the_bucket_of_a_clock_set_back_is_in_the_next_snapshot() -> None:
    at = Fixture()
    at.call()
    at.ledger.snapshot()
    at.clock.now -= 25
    at.call()
    assert calls_of(at.ledger.snapshot()).items() >= {(0, "m"): 2, (int(at.clock.now) // 10, "m"): 1}.items()


def test_what_a_clock_far_ahead_counted_is_in_no_window_when_it_is_right_again() -> None:
    at = Fixture()
    at.clock.now += 3600
    at.call()
    at.clock.now -= 3600
    at.call()
    assert (at.calls_since(60), at.calls()) == (1, 2)
    at.clock.now += 10
    at.call()
    assert at.calls_since(900) == 2


def test_a_snapshot_has_the_changed_models_and_buckets_only_with_absolute_values() -> None:
    at = Fixture()
    at.call("a")
    at.call("b")
    assert calls_of(at.ledger.snapshot()) == {(0, "a"): 1, (0, "b"): 1, (100_000, "a"): 1, (100_000, "b"): 1}
    at.call("a")
    at.clock.now += 10
    at.call("a")
    assert calls_of(at.ledger.snapshot()) == {(0, "a"): 3, (100_000, "a"): 2, (100_001, "a"): 1}
    at.clock.now += 10
    at.call("a")
    assert calls_of(at.ledger.snapshot()) == {(0, "a"): 4, (100_001, "a"): 1, (100_002, "a"): 1}
    assert at.ledger.snapshot().rows == ()


def test_a_snapshot_that_was_not_stored_is_in_the_next_one_under_a_higher_number() -> None:
    at = Fixture()
    at.call()
    lost = at.ledger.snapshot()
    at.clock.now += 20
    at.call()
    at.ledger.restore(lost)
    again = at.ledger.snapshot()
    assert calls_of(again) == {(0, "m"): 2, (100_000, "m"): 1, (100_002, "m"): 1}
    assert again.number > lost.number
    assert (lost.events, again.events) == (1, 2)


def test_all_buckets_of_a_snapshot_that_was_not_stored_are_in_the_next_one() -> None:
    at = Fixture()
    at.call()
    at.clock.now += 10
    at.call()
    at.ledger.restore(at.ledger.snapshot())
    assert calls_of(at.ledger.snapshot()) == {(0, "m"): 2, (100_000, "m"): 1, (100_001, "m"): 1}


def test_a_snapshot_of_everything_has_the_totals_of_idle_models_without_their_old_buckets() -> None:
    at = Fixture()
    at.call()
    at.ledger.snapshot()
    at.clock.now += 3600
    assert calls_of(at.ledger.snapshot(everything=True)) == {(0, "m"): 1}


def test_an_increment_is_in_no_bucket() -> None:
    at = Fixture()
    at.ledger.increment("m", {"call_count": 5})
    assert calls_of(at.ledger.snapshot()) == {(0, "m"): 5}
    at.call()
    assert calls_of(at.ledger.snapshot()) == {(0, "m"): 6, (100_000, "m"): 1}


def test_a_duration_beyond_all_clocks_still_adds_up() -> None:
    at = Fixture()
    for _ in range(2):
        at.ledger.record("m", "success", 1e300, None, None)
    totals = totals_of("m", at.ledger.totals()["m"])
    assert (totals.latency.max_seconds, totals.latency.sum_seconds) == (1e300, 2e12)
    assert totals.latency.buckets[-1] == 2


@pytest.mark.parametrize("tokens", [float("inf"), float("nan"), -5, "12", True, [], None])
def test_tokens_that_are_no_count_add_nothing(tokens: Any) -> None:
    at = Fixture()
    at.ledger.record("m", "success", None, {"input_tokens": tokens, "total_tokens": 3}, None)
    at.ledger.record("m", "success", None, {"input_token_details": tokens, "total_tokens": 3}, None)
    totals = totals_of("m", at.ledger.totals()["m"])
    assert (totals.input_tokens, totals.total_tokens, totals.calls_without_usage) == (0, 6, 0)


def test_a_usage_that_is_no_mapping_is_a_call_without_usage() -> None:
    at = Fixture()
    at.ledger.record("m", "success", None, "12 tokens", None)  # type: ignore[arg-type]  # what a careless model may say
    assert at.ledger.totals()["m"]["calls_without_usage"] == 1
