"""The thread map of one process: no server, nothing on disk."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias, TypeVar

from .._sync import InlineRunner
from . import rules
from .base import ThreadMap
from .clock import microseconds
from .filters import matches
from .paging import Filters, Query
from .rules import Inserted, NewThread, Row, Rule
from .values import SortBy

T = TypeVar("T")

_OrderName: TypeAlias = tuple[str, SortBy]
_Place: TypeAlias = tuple[int, str]


class InMemoryThreadMap(ThreadMap):
    """A `ThreadMap` in this process's memory, for one replica and for tests; gone when the process ends.

    Open from the start. Safe from any thread and any loop; no call ever waits.
    """

    def __init__(
        self,
        *,
        tenant: str = "default",
        ttl_seconds: float | None = None,
        tombstone_seconds: float = 2_592_000.0,
        operation_timeout_seconds: float = 10.0,
        _clock: Callable[[], int] = microseconds,
        _beside: InMemoryThreadMap | None = None,
    ) -> None:
        super().__init__(
            tenant=tenant,
            ttl_seconds=ttl_seconds,
            tombstone_seconds=tombstone_seconds,
            operation_timeout_seconds=operation_timeout_seconds,
        )
        self.runner = InlineRunner()
        self._clock = _clock
        self._lock: threading.Lock = _beside._lock if _beside else threading.Lock()
        self._tenants: dict[str, _Tenant] = _beside._tenants if _beside else {}
        self._is_open = True

    async def _open(self) -> None:
        """Nothing to open."""

    async def _close(self) -> None:
        """Nothing to close."""

    async def _read(self, keys: Sequence[str]) -> tuple[int, dict[str, Row]]:
        with self._lock:
            rows = self._own().rows
            return self._clock(), {key: rows[key] for key in keys if key in rows}

    async def _insert(self, keys: Sequence[str], new: NewThread) -> Inserted:
        with self._lock:
            now, mine = self._clock(), self._own()
            missing = [key for key in keys if key not in mine.rows]
            for key in missing:
                mine.store(new.row(key, now))
            return Inserted(now, set(missing))

    async def _change(self, key: str, rule: Rule[T]) -> T:
        with self._lock:
            mine = self._own()
            outcome = rule(self._clock(), mine.rows.get(key))
            if outcome.row is not None:
                mine.store(outcome.row)
            return outcome.answer

    async def _remove(self, key: str, change: str) -> None:
        with self._lock:
            mine = self._own()
            row = mine.rows.get(key)
            if row is not None and row.change == change:
                mine.remove(key)

    async def _page(self, query: Query) -> list[Row]:
        with self._lock:
            now, mine = self._clock(), self._own()
            found = (row for row in mine.walk(query) if matches(row, query.filters, now=now))
            return list(islice(found, query.offset, query.offset + query.limit))

    async def _count(self, user_id: str, filters: Filters) -> int:
        with self._lock:
            now, mine = self._clock(), self._own()
            return sum(matches(mine.rows[key], filters, now=now) for _, key in mine.order(user_id, "created_at"))

    async def _sweep(self, limit: int, change: str) -> int:
        with self._lock:
            now, mine = self._clock(), self._own()
            expired = [row for row in mine.rows.values() if row.deleted_at is None and not rules.is_live(row, now)]
            for row in expired[:limit]:
                mine.store(rules.buried(row, row.expires_at or now, change))
            mine.drop_tombstones(now - self._tombstone, limit)
            return len(expired[:limit])

    def _own(self) -> _Tenant:
        mine = self._tenants.get(self._tenant)
        return self._tenants.setdefault(self._tenant, _Tenant()) if mine is None else mine


class _Tenant:
    """One tenant's rows, and for each user its live and expired ones in both orders."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._orders: dict[_OrderName, list[_Place]] = {}

    def order(self, user_id: str, sort_by: SortBy) -> list[_Place]:
        return self._orders.get((user_id, sort_by), [])

    def store(self, row: Row) -> None:
        before = self.rows.get(row.thread_id)
        self.rows[row.thread_id] = row
        old, new = _entries(before), _entries(row)
        for entry in old:
            if entry not in new:
                self._drop(*entry)
        for entry in new:
            if entry not in old:
                self._add(*entry)

    def remove(self, key: str) -> None:
        for entry in _entries(self.rows.pop(key, None)):
            self._drop(*entry)

    def _add(self, name: _OrderName, place: _Place) -> None:
        insort(self._orders.setdefault(name, []), place)

    def _drop(self, name: _OrderName, place: _Place) -> None:
        order = self._orders[name]
        del order[bisect_left(order, place)]
        if not order:
            del self._orders[name]

    def walk(self, query: Query) -> Iterator[Row]:
        """The user's rows strictly after the query's place, in its order."""
        order = self.order(query.user_id, query.sort_by)
        if query.sort_order == "asc":
            places = range(bisect_right(order, query.after), len(order))
        else:
            places = range(bisect_left(order, query.after) - 1, -1, -1)
        return (self.rows[order[place][1]] for place in places)

    def drop_tombstones(self, deleted_until: int, limit: int) -> None:
        dead = (row.thread_id for row in self.rows.values() if row.deleted_at is not None)
        old = [key for key in dead if (self.rows[key].deleted_at or 0) <= deleted_until]
        for key in old[:limit]:
            self.remove(key)


def _entries(row: Row | None) -> tuple[tuple[_OrderName, _Place], ...]:
    """In which orders a row stands, and where: a tombstone in none."""
    if row is None or row.deleted_at is not None:
        return ()
    user_id, key = row.user_id, row.thread_id
    return ((user_id, "updated_at"), (row.updated_at, key)), ((user_id, "created_at"), (row.created_at, key))
