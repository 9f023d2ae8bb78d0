"""What every `ModelCounters` must do. Subclass it and give it yours."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ..counters.base import ModelCounters
from ..counters.values import LATENCY_BOUNDS, ModelTotals
from ..errors import StoreUnavailableError
from ._counters_health import HealthContract

Build = Callable[..., ModelCounters]

VOTER = {"thread_id": "t", "run_id": "r", "user_id": "u"}
ODD_NAMES = ("nul\0", "\ud800", "模型-🦌", 'back\\slash "quoted"', "\\u0000", "x" * 256, "\x7f", "a\nb", "%s {}")

_COUNTED: dict[str, dict[str, int]] = {
    "success": {"call_count": 1, "success_count": 1, "calls_without_usage": 1},
    "parse_error": {"call_count": 1, "success_count": 1, "parse_error_count": 1, "calls_without_usage": 1},
    "failure": {"call_count": 1, "failure_count": 1},
    "cancelled": {"cancelled_count": 1},
    "control_flow": {"control_flow_count": 1},
    "short_circuit": {"short_circuit_count": 1},
}


def numbers(totals: ModelTotals) -> dict[str, int]:
    """The plain counts that are not zero."""
    fields = {field.name: getattr(totals, field.name) for field in dataclasses.fields(totals)}
    return {name: value for name, value in fields.items() if type(value) is int and value}


class ModelCountersContract(HealthContract):
    """Define the fixture `build`: a function that makes new counters (not opened) of its keywords.

    Counters that replicas share pass `SharedModelCountersContract`, too.
    """

    @pytest.fixture
    def build(self) -> Build:
        raise NotImplementedError("override the fixture `build`")

    @pytest.fixture
    async def counters(self, build: Build) -> AsyncIterator[ModelCounters]:
        async with build(flush_interval_seconds=3600) as counters:
            yield counters

    # What is counted

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

    # Increments and rows

    async def test_increments_are_added_as_they_are(self, counters: ModelCounters) -> None:
        await counters.increment("m", call_count=2, failure_count=1)
        await counters.increment("m", success_count=5, positive_feedback_count=3, negative_feedback_count=4)
        await counters.increment("nothing")
        (row,) = await counters.list_rows()
        assert (row.model_name, row.call_count, row.success_count, row.failure_count) == ("m", 2, 5, 1)
        assert (row.positive_feedback_count, row.negative_feedback_count) == (3, 4)
        assert await counters.window() == {}

    @pytest.mark.parametrize("delta", [-1, 1.0, True, "1", None])
    async def test_an_increment_is_an_integer_that_is_not_negative(self, counters: ModelCounters, delta: Any) -> None:
        with pytest.raises(ValueError, match="integer"):
            await counters.increment("m", success_count=1, call_count=delta)
        assert await counters.totals() == {}

    async def test_rows_are_the_totals_by_name(self, counters: ModelCounters) -> None:
        before = time.time()
        for name in ("b", "c", "a"):
            counters.record(name, "success")
            await counters.add_feedback(name, "negative", thread_id=name, run_id="r", user_id="u")
        rows, totals = await counters.list_rows(), await counters.totals()
        assert [row.model_name for row in rows] == list(totals) == ["a", "b", "c"]
        for row in rows:
            assert all(
                getattr(totals[row.model_name], name) == value for name, value in dataclasses.asdict(row).items()
            )
            assert row.updated_at is not None
            assert before - 5 <= row.updated_at <= time.time() + 5

    # Votes

    async def test_one_vote_of_a_user_on_a_run(self, counters: ModelCounters) -> None:
        async def votes() -> dict[str, tuple[int, int]]:
            rows = await counters.list_rows()
            return {row.model_name: (row.positive_feedback_count, row.negative_feedback_count) for row in rows}

        assert await counters.add_feedback("m", None, **VOTER) is False
        assert await counters.add_feedback("m", "positive", **VOTER) is True
        assert await counters.add_feedback("m", "positive", **VOTER) is False
        assert await votes() == {"m": (1, 0)}
        assert await counters.add_feedback("m", "negative", **VOTER) is True
        assert await votes() == {"m": (0, 1)}
        assert await counters.add_feedback("n", "negative", **VOTER) is True
        assert await votes() == {"n": (0, 1)}
        assert await counters.add_feedback("n", None, **VOTER) is True
        assert await counters.add_feedback("n", None, **VOTER) is False
        assert await votes() == {}

    async def test_the_ids_of_a_vote_are_three(self, counters: ModelCounters) -> None:
        ids = [
            ("a", "b", "c"),
            ("ab", "c", "x"),
            ("a", "bc", "x"),
            ("a", "b:c", "x"),
            ("a:b", "c", "x"),
            (" a", "b", "c"),
        ]
        for thread_id, run_id, user_id in ids:
            assert await counters.add_feedback("m", "positive", thread_id=thread_id, run_id=run_id, user_id=user_id)
        assert (await counters.totals())["m"].positive_feedback_count == len(ids)

    @pytest.mark.parametrize(
        "wrong", [{"thread_id": ""}, {"run_id": None}, {"user_id": 7}, {"sentiment": "good"}, {"sentiment": 1}]
    )
    async def test_a_vote_that_makes_no_sense_is_refused(self, counters: ModelCounters, wrong: dict[str, Any]) -> None:
        values = {"sentiment": "positive", **VOTER, **wrong}
        with pytest.raises(ValueError, match=r"thread_id|sentiment"):
            await counters.add_feedback("m", values.pop("sentiment"), **values)
        with pytest.raises(ValueError, match="name"):
            await counters.add_feedback(" ", "positive", **VOTER)
        assert await counters.totals() == {}

    # Windows

    async def test_a_window_has_what_was_recorded_in_it(self, counters: ModelCounters) -> None:
        counters.record("m", "success", duration_seconds=0.5)
        counters.record("m", "failure", error_type="rate_limit")
        counters.record("m", "cancelled")
        for _ in range(2):
            window = (await counters.window(30))["m"]
            assert (window.call_count, window.success_count, window.failure_count, window.cancelled_count) == (
                2,
                1,
                1,
                1,
            )
            assert (window.seconds, window.failure_rate, window.latency.count) == (30, 0.5, 1)
            assert window.failures_by_kind == {"rate_limit": 1}
            await counters.flush()

    @pytest.mark.parametrize("seconds", [9.9, 0, -60, 901, float("nan")])
    async def test_a_window_has_10_to_900_seconds(self, counters: ModelCounters, seconds: float) -> None:
        with pytest.raises(ValueError, match="window"):
            await counters.window(seconds)

    async def test_compaction_refuses_a_negative_age(self, counters: ModelCounters) -> None:
        with pytest.raises(ValueError, match="dead_after_seconds"):
            await counters.compact(dead_after_seconds=-1)

    async def test_any_thread_and_any_loop_may_flush(self, counters: ModelCounters) -> None:
        async def elsewhere() -> int:
            counters.record("m", "success")
            await counters.flush()
            return (await counters.totals())["m"].call_count

        counters.flush_sync()
        await asyncio.to_thread(counters.flush_sync)
        assert await asyncio.to_thread(asyncio.run, elsewhere()) == 1
        assert await elsewhere() == 2

    # The ends

    async def test_setup_and_close_may_be_repeated(self, build: Build) -> None:
        counters = build()
        counters.record("m", "success")
        for _ in range(2):
            await counters.setup()
        assert (await counters.totals())["m"].call_count == 1
        for _ in range(2):
            await counters.close()

    async def test_setup_from_several_loops_at_once_opens_once(self, build: Build) -> None:
        counters = build(flush_interval_seconds=3600)

        async def set_up() -> None:
            await asyncio.gather(counters.setup(), counters.setup())

        await asyncio.gather(*(asyncio.to_thread(asyncio.run, set_up()) for _ in range(4)))
        counters.record("m", "success")
        assert (await counters.totals())["m"].call_count == 1
        await asyncio.gather(counters.close(), counters.close())
        own = [thread.name for thread in threading.enumerate() if "deerflow-replica-counters" in thread.name]
        assert not own

    async def test_after_close_everything_raises(self, build: Build) -> None:
        async with build() as counters:
            counters.record("m", "success")
        for call in (counters.flush_sync, counters.local_totals, lambda: counters.record("m", "success")):
            with pytest.raises(StoreUnavailableError):
                call()
        for acall in (
            counters.setup,
            counters.flush,
            counters.totals,
            counters.window,
            counters.list_rows,
            counters.compact,
            lambda: counters.arecord("m", "success"),
            lambda: counters.increment("m", call_count=1),
            lambda: counters.add_feedback("m", "positive", **VOTER),
        ):
            with pytest.raises(StoreUnavailableError):
                await acall()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"durability": "maybe"},
            {"flush_interval_seconds": 0},
            {"flush_interval_seconds": float("nan")},
            {"flush_max_events": 0},
            {"max_models": 0},
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, build: Build, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            build(**wrong)
