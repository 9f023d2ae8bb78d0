"""Two replicas on each backend do what the in-process map does, whatever is asked of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from deerflow_replica._drivers.mongo_clock import ServerClock
from deerflow_replica.errors import VersionConflictError
from deerflow_replica.threads import (
    ANY_USER,
    UNSET,
    Claim,
    InMemoryThreadMap,
    MongoThreadMap,
    PostgresThreadMap,
    RedisThreadMap,
    SqliteThreadMap,
    ThreadMap,
    ThreadPage,
    ThreadRecord,
)
from deerflow_replica.threads.rules import is_live

Replicas: TypeAlias = tuple[ThreadMap, ThreadMap]

_NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_AT_ONCE = 0.000_001

threads_ids = st.sampled_from(["a", "b", "B", "ü", "u\u0308", "\U0001f98c", "*"])
users = st.sampled_from(["ann", "bob"])
anyone = st.one_of(users, st.just(ANY_USER))
statuses = st.sampled_from(["idle", "busy", "x"])
keys = st.sampled_from(["k", "a.b", "$x", ""])
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1), st.sampled_from([0.0, 1.0, 1.5]), st.sampled_from(["", "1"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2), max_leaves=3
)
metadata = st.dictionaries(keys, values, max_size=2)
durations = st.sampled_from([None, 1, 3])
versions = st.one_of(st.none(), st.integers(1, 3))


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now


class ThreadMapMachine(RuleBasedStateMachine):
    """`strict`: one clock for all, so that times are compared too. Else what expires does so before the next call."""

    def __init__(self, replicas: Replicas, clock: Clock, *, is_strict: bool) -> None:
        super().__init__()
        tenant = uuid.uuid4().hex
        self.clock = clock
        self.is_strict = is_strict
        self.oracle = InMemoryThreadMap(tenant=tenant, tombstone_seconds=2, _clock=clock)
        self.replicas = tuple(replica.for_tenant(tenant) for replica in replicas)

    def same(self, ask: Callable[[ThreadMap], Any], which: bool) -> Any:
        """Both give the same answer, or the same conflict."""
        self.clock.now += 0 if self.is_strict else 1
        expected, actual = self.answer(self.oracle, ask), self.answer(self.replicas[which], ask)
        assert actual == expected
        return expected

    def answer(self, threads: ThreadMap, ask: Callable[[ThreadMap], Any]) -> Any:
        try:
            return self.comparable(threads.runner.call(ask(threads)))
        except VersionConflictError as conflict:
            return "conflict", self.comparable(conflict.current)

    def has_ended(self, thread_id: str) -> bool:
        row = self.oracle._own().rows.get(thread_id)
        return row is not None and not is_live(row, self.clock.now + 1)

    def life(self, ttl_seconds: Any) -> Any:
        return _AT_ONCE if isinstance(ttl_seconds, int) and not self.is_strict else ttl_seconds

    def comparable(self, value: Any) -> Any:
        if self.is_strict:
            return value
        match value:
            case ThreadRecord():
                expires_at = value.expires_at and _NO_TIME
                return replace(value, created_at=_NO_TIME, updated_at=_NO_TIME, expires_at=expires_at)
            case Claim():
                return replace(value, record=self.comparable(value.record))
            case ThreadPage():
                return tuple(map(self.comparable, value.items)), value.next_cursor is None
            case list() | tuple():
                return [self.comparable(item) for item in value]
        return value

    @precondition(lambda self: self.is_strict)
    @rule(seconds=st.sampled_from([0.000001, 1, 2, 5]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += round(seconds * 1_000_000)

    @rule(limit=st.sampled_from([1, 1000]), which=st.booleans())
    def sweep(self, limit: int, which: bool) -> None:
        """Which of the expired go first is free, so a partial sweep is followed by a whole one."""
        self.same(lambda threads: threads.sweep(limit=limit), which)
        self.same(lambda threads: threads.sweep(), which)

    @rule(thread_id=threads_ids, user=users, metadata=metadata, status=statuses, ttl=durations, which=st.booleans())
    def claim(self, thread_id: str, user: str, metadata: Any, status: str, ttl: Any, which: bool) -> None:
        life = self.life(ttl)
        self.same(
            lambda threads: threads.claim(thread_id, user, metadata=metadata, status=status, ttl_seconds=life), which
        )

    @rule(thread_ids=st.lists(threads_ids, max_size=5), user=users, which=st.booleans())
    def claim_many(self, thread_ids: list[str], user: str, which: bool) -> None:
        if not self.is_strict:  # one that has ended is made anew a moment after the others: no order is promised there
            thread_ids = [thread_id for thread_id in thread_ids if not self.has_ended(thread_id)]
        self.same(lambda threads: threads.claim_many(thread_ids, user), which)

    @rule(
        thread_id=threads_ids,
        user=anyone,
        status=st.one_of(statuses, st.just(UNSET)),
        metadata=st.none() | metadata,
        replaces=st.booleans(),
        removed=st.lists(keys, max_size=2),
        ttl=st.one_of(durations, st.just(UNSET)),
        touch=st.booleans(),
        version=versions,
        which=st.booleans(),
    )
    def update(
        self,
        thread_id: str,
        user: Any,
        status: Any,
        metadata: Any,
        replaces: bool,
        removed: list[str],
        ttl: Any,
        touch: bool,
        version: int | None,
        which: bool,
    ) -> None:
        life = self.life(ttl)
        self.same(
            lambda threads: threads.update(
                thread_id,
                user_id=user,
                status=status,
                metadata=metadata,
                replace_metadata=replaces,
                remove_metadata=removed,
                ttl_seconds=life,
                touch=touch,
                if_version=version,
            ),
            which,
        )

    @rule(thread_id=threads_ids, user=anyone, which=st.booleans())
    def touch(self, thread_id: str, user: Any, which: bool) -> None:
        self.same(lambda threads: threads.touch(thread_id, user_id=user), which)

    @rule(thread_id=threads_ids, giver=users, taker=users, version=versions, which=st.booleans())
    def transfer(self, thread_id: str, giver: str, taker: str, version: int | None, which: bool) -> None:
        self.same(lambda threads: threads.transfer(thread_id, giver, taker, if_version=version), which)

    @rule(thread_id=threads_ids, user=anyone, which=st.booleans())
    def delete(self, thread_id: str, user: Any, which: bool) -> None:
        self.same(lambda threads: threads.delete(thread_id, user_id=user), which)

    @rule(thread_ids=st.lists(threads_ids, max_size=4), user=users, which=st.booleans())
    def look(self, thread_ids: list[str], user: str, which: bool) -> None:
        self.same(lambda threads: threads.owners_of(thread_ids), which)
        for thread_id in thread_ids:
            self.same(partial(ThreadMap.get, thread_id=thread_id, user_id=user), which)

    @rule(thread_id=threads_ids, user=st.none() | users, exists=st.booleans(), which=st.booleans())
    def access(self, thread_id: str, user: str | None, exists: bool, which: bool) -> None:
        self.same(lambda threads: threads.check_access(thread_id, user, require_existing=exists), which)

    @rule(
        user=users,
        query=st.fixed_dictionaries(
            {
                "sort_by": st.sampled_from(["updated_at", "created_at"]),
                "sort_order": st.sampled_from(["desc", "asc"]),
                "limit": st.integers(1, 4),
            },
            optional={"status": statuses, "metadata": metadata, "ids": st.lists(threads_ids, max_size=4)},
        ),
        which=st.booleans(),
    )
    def walk(self, user: str, query: dict[str, Any], which: bool) -> None:
        filters = {name: query[name] for name in ("status", "metadata") if name in query}
        self.same(lambda threads: threads.count(user, **filters), which)
        self.same(lambda threads: _pages(threads, user, query), which)


async def _pages(threads: ThreadMap, user: str, query: dict[str, Any]) -> list[ThreadPage]:
    pages = [await threads.list(user, **query)]
    while (cursor := pages[-1].next_cursor) is not None:
        pages.append(await threads.list(user, cursor=cursor, **query))
    return pages


@contextmanager
def opened(first: ThreadMap, second: ThreadMap) -> Iterator[Replicas]:
    asyncio.run(first.setup())
    asyncio.run(second.setup())
    try:
        yield first, second
    finally:
        asyncio.run(first.close())
        asyncio.run(second.close())


def run(replicas: Replicas, clock: Clock, *, is_strict: bool, examples: int, **more: Any) -> None:
    class Machine(ThreadMapMachine):
        def __init__(self) -> None:
            super().__init__(replicas, clock, is_strict=is_strict)

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None, **more)
    )


def test_sqlite_is_the_model(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "threads.db"
    first, second = (SqliteThreadMap(path, tombstone_seconds=2, _clock=clock) for _ in range(2))
    with opened(first, second) as replicas:
        run(replicas, clock, is_strict=True, examples=40)


def test_postgres_is_the_model(postgres_dsn: str, postgres_schema: str) -> None:
    first, second = (PostgresThreadMap(postgres_dsn, schema=postgres_schema) for _ in range(2))
    with opened(first, second) as replicas:
        run(replicas, Clock(), is_strict=False, examples=15)


def test_redis_is_the_model(redis_url: str, key_prefix: str) -> None:
    first, second = (RedisThreadMap(redis_url, key_prefix=key_prefix) for _ in range(2))
    with opened(first, second) as replicas:
        run(replicas, Clock(), is_strict=False, examples=25)


def test_mongodb_is_the_model(mongo_url: str, mongo_database: str) -> None:
    """One clock for both: the server's has milliseconds, and what is changed within one has no order."""
    clock = ServerClock()
    first, second = (MongoThreadMap(mongo_url, database=mongo_database, _clock=clock) for _ in range(2))
    with opened(first, second) as replicas:
        run(replicas, Clock(), is_strict=False, examples=10)


@pytest.mark.parametrize("break_it", ["owner", "order"])
def test_the_machine_finds_a_wrong_map(break_it: str) -> None:
    """The test's own test."""

    class WrongMap(InMemoryThreadMap):
        async def owners_of(self, thread_ids: Any) -> dict[str, str | None]:
            return {} if break_it == "owner" else await super().owners_of(thread_ids)

        async def _page(self, query: Any) -> Any:
            rows = await super()._page(query)
            return rows[::-1] if break_it == "order" else rows

    clock = Clock()
    wrong = WrongMap(tombstone_seconds=2, _clock=clock)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run((wrong, wrong), clock, is_strict=True, examples=200, phases=[Phase.generate])
