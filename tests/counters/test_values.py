"""What the given-out values compute, and that they can be passed around."""

from __future__ import annotations

import copy
import pickle

import pytest

from deerflow_replica.counters import LatencyHistogram, ModelWindow
from deerflow_replica.counters.values import LATENCY_BOUNDS, FrozenCounts

EMPTY = LatencyHistogram(0, 0.0, 0.0, (0,) * 18)


def histogram(**counts: int) -> LatencyHistogram:
    buckets = [counts.get(f"b{index}", 0) for index in range(18)]
    return LatencyHistogram(sum(buckets), 0.0, 1000.0, tuple(buckets))


def test_a_quantile_is_linear_inside_a_bucket() -> None:
    latency = histogram(b0=2, b2=2)
    assert latency.quantile(0.25) == pytest.approx(0.005)
    assert latency.quantile(0.5) == pytest.approx(0.01)
    assert latency.quantile(0.75) == pytest.approx(0.03)
    assert latency.quantile(1) == pytest.approx(0.04)


def test_a_quantile_never_exceeds_the_longest_call() -> None:
    assert histogram(b17=1).quantile(1) == 1000.0
    assert LATENCY_BOUNDS[-1] < (histogram(b17=2).quantile(0.5) or 0) < 1000.0
    assert LatencyHistogram(1, 0.011, 0.011, (0, 1, *[0] * 16)).quantile(1) == 0.011


def test_without_calls_there_is_no_quantile_and_no_failure_rate() -> None:
    assert EMPTY.quantile(0.5) is None
    assert ModelWindow("m", 60, 0, 0, 0, 1, FrozenCounts({}), EMPTY).failure_rate == 0.0


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_quantile_lies_between_0_and_1(q: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        EMPTY.quantile(q)


def test_counts_are_read_only_and_can_be_copied_pickled_and_compared() -> None:
    counts = FrozenCounts({"auth": 1})
    assert counts == {"auth": 1} == copy.deepcopy(counts) == pickle.loads(pickle.dumps(counts))  # noqa: S301  # our own
    assert hash(counts) == hash(FrozenCounts({"auth": 1}))
    assert not hasattr(counts, "__setitem__")
