"""Three replicas, whatever they do in whatever order, against plain arithmetic."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deerflow_replica.counters import (
    ModelTotals,
    MongoModelCounters,
    PostgresModelCounters,
    RedisModelCounters,
    SqliteModelCounters,
)
from deerflow_replica.counters._ledger import Snapshot
from deerflow_replica.errors import StoreUnavailableError

Step = tuple[str, int, Any]

REPLICAS = st.integers(0, 2)
MODELS = st.sampled_from(["a", "b", "c\0d"])
OUTCOMES = st.sampled_from(["success", "parse_error", "failure", "cancelled", "control_flow", "short_circuit"])
CALLS = st.tuples(
    MODELS, OUTCOMES, st.sampled_from([None, 0.0, 0.1, 0.3, 7.7, 1000.0]), st.sampled_from([None, 0, 5, 10**12])
)
VOTES = st.tuples(MODELS, st.sampled_from(["positive", "negative", None]), st.sampled_from("xyz"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), REPLICAS, CALLS),
        st.tuples(st.just("record"), REPLICAS, CALLS),
        st.tuples(st.just("increment"), REPLICAS, st.tuples(MODELS, st.integers(0, 3), st.integers(0, 3))),
        st.tuples(st.just("vote"), REPLICAS, VOTES),
        st.tuples(st.sampled_from(["flush", "compact", "restart", "check"]), REPLICAS, st.none()),
        st.tuples(st.just("lose"), REPLICAS, st.sampled_from(["request", "reply"])),
        st.tuples(st.just("late"), REPLICAS, st.integers(0, 20)),
        st.tuples(st.just("overtaken"), REPLICAS, CALLS),
    ),
    max_size=40,
)


class WithFaults:
    """Remembers what it wrote, so that it can be written again, late; and loses what it is told to lose."""

    sent: list[Snapshot]
    lost = ""

    async def _write(self, snapshot: Snapshot) -> None:
        self.sent.append(snapshot)
        if self.lost == "request":
            raise StoreUnavailableError("the request is lost")
        await super()._write(snapshot)  # type: ignore[misc]  # mixed into a backend
        if self.lost == "reply":
            raise StoreUnavailableError("the reply is lost")


class SqliteWithFaults(WithFaults, SqliteModelCounters):
    pass


class PostgresWithFaults(WithFaults, PostgresModelCounters):
    pass


class RedisWithFaults(WithFaults, RedisModelCounters):
    pass


class MongoWithFaults(WithFaults, MongoModelCounters):
    pass


class Fleet:
    """Three replicas, and what their totals should be."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self.build = build
        self.replicas: list[Any] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.longest: dict[str, float] = {}
        self.votes: dict[str, tuple[str, str]] = {}

    async def play(self, steps: list[Step]) -> None:
        self.replicas = [await self.opened() for _ in range(3)]
        try:
            for name, replica, argument in steps:
                await getattr(self, name)(replica, argument)
            await self.check(0, None)
            await self.compact(1, None)
            await self.check(2, None)
        finally:
            for replica in self.replicas:
                await replica.close()

    async def opened(self) -> Any:
        counters = self.build()
        counters.sent = []
        await counters.setup()
        return counters

    async def record(self, replica: int, call: tuple[str, Any, float | None, int | None]) -> None:
        model, outcome, seconds, tokens = call
        usage = None if tokens is None else {"input_tokens": tokens, "total_tokens": tokens}
        self.replicas[replica].record(model, outcome, duration_seconds=seconds, usage=usage, error_type="auth")
        self.counts[model, "touched"] += 1
        if outcome not in ("success", "parse_error", "failure"):
            self.counts[model, f"{outcome}_count"] += 1
            return
        self.counts[model, "call_count"] += 1
        self.counts[model, "failure_count" if outcome == "failure" else "success_count"] += 1
        self.counts[model, "parse_error_count"] += outcome == "parse_error"
        self.counts[model, "calls_without_usage"] += tokens is None and outcome != "failure"
        self.counts[model, "input_tokens"] += tokens or 0
        if seconds is not None:
            self.counts[model, "durations"] += 1
            self.counts[model, "milliseconds"] += round(seconds * 1000)
            self.longest[model] = max(self.longest.get(model, 0.0), seconds)

    async def increment(self, replica: int, deltas: tuple[str, int, int]) -> None:
        model, calls, positive = deltas
        await self.replicas[replica].increment(model, call_count=calls, positive_feedback_count=positive)
        self.counts[model, "touched"] += calls + positive
        self.counts[model, "call_count"] += calls
        self.counts[model, "positive_feedback_count"] += positive

    async def vote(self, replica: int, ballot: tuple[str, Any, str]) -> None:
        model, sentiment, user = ballot
        before = self.votes.pop(user, None)
        if sentiment is not None:
            self.votes[user] = (model, sentiment)
        changed = await self.replicas[replica].add_feedback(model, sentiment, thread_id="t", run_id="r", user_id=user)
        assert changed is (before != self.votes.get(user))

    async def flush(self, replica: int, _: None) -> None:
        await self.replicas[replica].flush()

    async def lose(self, replica: int, what: str) -> None:
        counters = self.replicas[replica]
        counters.lost = what
        try:
            await counters.flush()
        except StoreUnavailableError as error:
            assert "is lost" in str(error)  # noqa: PT017  # nothing to flush is no error
        counters.lost = ""

    async def late(self, replica: int, which: int) -> None:
        """A statement that was thought lost arrives after newer ones."""
        sent = self.replicas[replica].sent
        if sent:
            again = sent.pop(which % len(sent))
            await self.replicas[replica]._write(again)

    async def overtaken(self, replica: int, call: tuple[str, Any, float | None, int | None]) -> None:
        """The shortest way to a late one: two flushes, and the first arrives last."""
        for _ in range(2):
            await self.record(replica, call)
            await self.flush(replica, None)
        await self.late(replica, len(self.replicas[replica].sent) - 2)

    async def compact(self, replica: int, _: None) -> None:
        await asyncio.gather(*[self.replicas[number].compact(dead_after_seconds=0) for number in {replica, 1}])

    async def restart(self, replica: int, _: None) -> None:
        await self.replicas[replica].close()
        self.replicas[replica] = await self.opened()

    async def check(self, replica: int, _: None) -> None:
        for counters in self.replicas[:replica] + self.replicas[replica + 1 :]:
            await counters.flush()
        self.compare(await self.replicas[replica].totals())

    def compare(self, totals: dict[str, ModelTotals]) -> None:
        expected = self.counts.copy()
        for model, sentiment in self.votes.values():
            expected[model, f"{sentiment}_feedback_count"] += 1
            expected[model, "touched"] += 1
        assert set(totals) == {model for model, name in expected if name == "touched" and expected[model, name]}
        for model, total in totals.items():
            for name in ("call_count", "success_count", "failure_count", "positive_feedback_count",
                         "negative_feedback_count", "cancelled_count", "control_flow_count", "short_circuit_count",
                         "parse_error_count", "calls_without_usage", "input_tokens"):  # fmt: skip
                assert getattr(total, name) == expected[model, name], (model, name)
            assert total.total_tokens == total.input_tokens
            assert total.failures_by_kind.get("auth", 0) == total.failure_count
            assert total.latency.count == expected[model, "durations"]
            assert total.latency.sum_seconds == expected[model, "milliseconds"] / 1000
            assert total.latency.max_seconds == self.longest.get(model, 0.0)


def run(play: Coroutine[Any, Any, None]) -> None:
    asyncio.run(play)


@given(STEPS)
@settings(max_examples=60)
def test_sqlite_totals_are_plain_arithmetic(steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "counters.db"
        run(Fleet(lambda: SqliteWithFaults(path, flush_interval_seconds=3600)).play(steps))


@given(steps=STEPS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_postgres_totals_are_plain_arithmetic(postgres_dsn: str, postgres_schema: str, steps: list[Step]) -> None:
    where: Any = {"schema": postgres_schema, "table": f"t{uuid.uuid4().hex[:12]}"}  # of each example its own
    run(Fleet(lambda: PostgresWithFaults(postgres_dsn, **where, flush_interval_seconds=3600)).play(steps))


@given(steps=STEPS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_redis_totals_are_plain_arithmetic(redis_url: str, key_prefix: str, steps: list[Step]) -> None:
    prefix = f"{key_prefix}:{uuid.uuid4().hex[:12]}"
    run(Fleet(lambda: RedisWithFaults(redis_url, key_prefix=prefix, flush_interval_seconds=3600)).play(steps))


@given(steps=STEPS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_mongodb_totals_are_plain_arithmetic(mongo_url: str, mongo_database: str, steps: list[Step]) -> None:
    where: Any = {"database": mongo_database, "collection": f"t{uuid.uuid4().hex[:12]}"}
    run(Fleet(lambda: MongoWithFaults(mongo_url, **where, flush_interval_seconds=3600)).play(steps))


def test_a_fleet_that_counts_wrong_is_noticed(tmp_path: Path) -> None:
    class Doubling(SqliteWithFaults):
        def record(self, *arguments: Any, **keywords: Any) -> None:
            super().record(*arguments, **keywords)
            super().record(*arguments, **keywords)

    steps: list[Step] = [("record", 0, ("a", "success", 0.1, 5))]
    with pytest.raises(AssertionError):
        run(Fleet(lambda: Doubling(tmp_path / "counters.db")).play(steps))
