"""What model counters count of the calls that they are told of."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

import pytest

from ..counters.base import ModelCounters
from ..counters.values import LATENCY_BOUNDS
from ._counters_common import Build, CountersFixtures, numbers

ODD_NAMES = ("nul\0", "\ud800", "模型-🦌", 'back\\slash "quoted"', "\\u0000", "x" * 256, "\x7f", "a\nb", "%s {}")

_COUNTED: dict[str, dict[str, int]] = {
    "success": {"call_count": 1, "success_count": 1, "calls_without_usage": 1},
    "parse_error": {"call_count": 1, "success_count": 1, "parse_error_count": 1, "calls_without_usage": 1},
    "failure": {"call_count": 1, "failure_count": 1},
    "cancelled": {"cancelled_count": 1},
    "control_flow": {"control_flow_count": 1},
    "short_circuit": {"short_circuit_count": 1},
}


class RecordContract(CountersFixtures):
    @pytest.mark.parametrize("outcome", list(_COUNTED))
    async def test_each_outcome_counts_as_itself(self, counters: ModelCounters, outcome: Any) -> None:
        counters.record("m", outcome, duration_seconds=0.25, error_type="auth")
        for totals in (counters.local_totals()["m"], (await counters.totals())["m"]):
            assert numbers(totals) == _COUNTED[outcome]
            assert totals.latency.count == totals.call_count
            assert totals.failures_by_kind == ({"auth": 1} if outcome == "failure" else {})

    @pytest.mark.parametrize("kind", ["transient", "rate_limit", "auth", "request", "unknown"])
    async def test_failures_count_by_kind(self, counters: ModelCounters, kind: str) -> None:
        counters.record("m", "failure", error_type=kind)
        assert (await counters.totals())["m"].failures_by_kind == {kind: 1}

    @pytest.mark.parametrize("kind", [None, "", "ValueError", [], 3])
    async def test_any_other_kind_is_unknown(self, counters: ModelCounters, kind: Any) -> None:
        counters.record("m", "failure", error_type=kind)
        assert (await counters.totals())["m"].failures_by_kind == {"unknown": 1}

    @pytest.mark.parametrize(
        ("name", "outcome", "seconds"),
        [
            ("m", "sucess", None),
            ("m", None, None),
            ("m", [], None),
            ("", "success", None),
            (" \t", "success", None),
            ("x" * 257, "success", None),
            (None, "success", None),
            (b"m", "success", None),
            ([], "success", None),
            ("m", "success", -0.001),
            ("m", "success", float("nan")),
            ("m", "success", float("inf")),
            ("m", "cancelled", float("-inf")),
            ("m", "success", "1"),
            ("m", "success", 10**400),
        ],
    )
    async def test_what_makes_no_sense_is_refused_and_not_counted(
        self, counters: ModelCounters, name: Any, outcome: Any, seconds: Any
    ) -> None:
        with pytest.raises(ValueError, match=r"outcome|name|duration"):
            counters.record(name, outcome, duration_seconds=seconds)
        assert counters.local_totals() == {}
        assert await counters.totals() == {}

    async def test_tokens_add_up_and_missing_usage_is_no_zero(self, counters: ModelCounters) -> None:
        usage = {
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_token_details": {"cache_read": 60, "cache_creation": 7, "audio": 1},
            "output_token_details": {"reasoning": 9},
        }
        counters.record("m", "success", usage=usage)
        counters.record("m", "parse_error", usage={"input_tokens": 1, "output_tokens": None, "total_tokens": 1})
        counters.record("m", "success", usage={"input_tokens": 2, "input_token_details": None})
        counters.record("m", "success")
        counters.record("m", "failure")
        totals = (await counters.totals())["m"]
        assert (totals.input_tokens, totals.output_tokens, totals.total_tokens) == (103, 20, 121)
        assert (totals.cache_read_tokens, totals.cache_creation_tokens, totals.reasoning_tokens) == (60, 7, 9)
        assert totals.calls_without_usage == 1

    async def test_a_number_that_no_store_holds_is_no_count(self, counters: ModelCounters) -> None:
        usage = {"input_tokens": 10**5000, "output_tokens": 2, "output_token_details": {"reasoning": 10**400}}
        counters.record("m", "success", usage=usage)
        with pytest.raises(ValueError, match="call_count"):
            await counters.increment("m", call_count=10**5000)
        await counters.increment("m", failure_count=2**63 - 1)
        await counters.increment("m", failure_count=2**63 - 1)
        await counters.flush()
        totals = (await counters.totals())["m"]
        assert (totals.input_tokens, totals.output_tokens, totals.reasoning_tokens) == (0, 2, 0)
        assert totals.failure_count == 2 * (2**63 - 1)

    async def test_a_duration_falls_below_the_first_bound_that_is_not_smaller(self, counters: ModelCounters) -> None:
        for bound in LATENCY_BOUNDS:
            counters.record("m", "success", duration_seconds=bound)
            counters.record("m", "failure", duration_seconds=bound * 1.0001)
        counters.record("m", "parse_error", duration_seconds=0)
        await counters.flush()
        latency = (await counters.totals())["m"].latency
        assert latency.buckets == (2, *[2] * 16, 1)
        assert latency.count == sum(latency.buckets)
        assert latency.max_seconds == LATENCY_BOUNDS[-1] * 1.0001
        assert latency.sum_seconds == pytest.approx(sum(LATENCY_BOUNDS) * 2.0001)
        assert latency.quantile(0) == 0.0
        assert latency.quantile(1) == latency.max_seconds

    async def test_a_name_is_stripped_and_may_be_odd(self, counters: ModelCounters) -> None:
        counters.record(" m\n", "success")
        for name in ODD_NAMES:
            counters.record(name, "failure")
            await counters.add_feedback(name, "positive", thread_id=name, run_id="r", user_id="u")
        await counters.flush()
        totals = await counters.totals()
        assert list(totals) == sorted({"m", *ODD_NAMES})
        assert all(totals[name].positive_feedback_count == totals[name].failure_count == 1 for name in ODD_NAMES)

    async def test_names_beyond_the_limit_count_together(self, build: Build) -> None:
        async with build(max_models=2) as counters:
            for name in ("a", "b", "c", "d", "a", "__other__"):
                counters.record(name, "failure")
            await counters.increment("e", call_count=2)
            calls = {name: totals.call_count for name, totals in (await counters.totals()).items()}
        assert calls == {"a": 2, "b": 1, "__other__": 5}

    async def test_what_is_counted_together_takes_no_place(self, build: Build) -> None:
        async with build(max_models=2) as counters:
            for name in ("__other__", "a", "b", "c"):
                counters.record(name, "failure")
            assert {name: one.call_count for name, one in (await counters.totals()).items()} == {
                "a": 1,
                "b": 1,
                "__other__": 2,
            }

    async def test_values_cannot_be_changed(self, counters: ModelCounters) -> None:
        counters.record("m", "failure")
        totals = (await counters.totals())["m"]
        with pytest.raises(dataclasses.FrozenInstanceError):
            totals.call_count = 0  # type: ignore[misc]  # that it is refused is the point
        with pytest.raises(TypeError):
            totals.failures_by_kind["unknown"] = 0  # type: ignore[index]  # that it is refused is the point
        assert dataclasses.asdict(totals)["failures_by_kind"] == {"unknown": 1}

    async def test_threads_lose_nothing(self, counters: ModelCounters) -> None:
        def work() -> None:
            for _ in range(500):
                counters.record("m", "success", duration_seconds=0.1)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            await counters.flush()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        totals = (await counters.totals())["m"]
        assert (totals.call_count, totals.latency.count, totals.latency.sum_seconds) == (4000, 4000, 400.0)
