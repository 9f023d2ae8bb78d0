"""What model counters make of votes, and of numbers that are added as they are."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from ..counters.base import ModelCounters
from ._counters_common import VOTER, CountersFixtures


class IncrementContract(CountersFixtures):
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


class VoteContract(CountersFixtures):
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
