"""A backend of one's own, as `docs/store.md` describes it: a dict that the stores of one process share."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from langgraph.store.base import TTLConfig

from deerflow_replica.errors import ConfigError
from deerflow_replica.store import SharedStore
from deerflow_replica.store.backend import Backend
from deerflow_replica.store.conditions import AllOf, holds
from deerflow_replica.store.listing import page
from deerflow_replica.store.values import (
    Conflict,
    Count,
    Get,
    ListNamespaces,
    OnConflict,
    Place,
    Read,
    Restored,
    Row,
    Search,
    Write,
    Written,
)


@dataclass(frozen=True)
class Kept:
    row: Row
    ttl: int | None = None
    expires_at: datetime | None = None


@dataclass
class Shared:
    """What all replicas see."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    items: dict[Place, Kept] = field(default_factory=dict)
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    is_set_up: bool = False
    last: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Never the same twice."""
        self.last = max(datetime.now(UTC), self.last + timedelta(microseconds=1))
        return self.last


class DictStore(SharedStore):
    def __init__(self, shared: Shared, *, ttl: TTLConfig | None = None) -> None:
        super().__init__("dict-store", ttl=ttl)
        self._shared = shared

    def _new_backend(self) -> Backend:
        return DictBackend(self._shared)


class DictBackend(Backend):
    """No hook awaits anything, so that what it does under the lock is one step for every thread."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def open(self) -> None:
        """A dict is always open."""

    async def close(self) -> None:
        """Nothing is open."""

    async def set_up(self, *, create_schema: bool) -> None:
        self._shared.is_set_up = True

    async def run(self, reads: Sequence[Read], writes: Sequence[Write], *, live: bool) -> list[Any]:
        with self._items() as items:
            answers = [self._answer(items, read, live) for read in reads]
            for write in writes:
                self._write(items, write, live)
            return answers

    async def write_if(self, write: Write, *, live: bool) -> Written | Conflict:
        with self._items() as items:
            there = items.get(write.place)
            current = there.row.version if there and self._counts(there, live) else 0
            return self._write(items, write, live) if current == write.if_version else Conflict(current)

    async def touch(self, places: Sequence[Place]) -> None:
        with self._items() as items:
            for place in places:
                there = items.get(place)
                if there and self._counts(there, live=True):
                    items[place] = replace(there, expires_at=_after(self._shared.now(), there.ttl))

    async def delete_namespace(self, prefix: str, *, live: bool) -> int:
        with self._items() as items:
            below = [items.pop(place) for place in list(items) if _is_below(place.namespace, prefix)]
            return sum(self._counts(kept, live) for kept in below)

    async def sweep(self, limit: int) -> int | None:
        with self._items() as items:
            expired = [place for place, kept in items.items() if not self._counts(kept, live=True)][:limit]
            for place in expired:
                del items[place]
            return len(expired)

    async def restore(self, items: Sequence[Restored], *, on_conflict: OnConflict) -> int:
        with self._items() as kept:
            wanted = [item for item in items if _is_wanted(item, kept.get(item.write.place), on_conflict)]
            for write, created_at, updated_at, expires_at in wanted:
                kept[write.place] = Kept(self._row(write, created_at, updated_at), write.ttl, expires_at)
            return len(wanted)

    def _items(self) -> _Locked:
        return _Locked(self._shared)

    def _counts(self, kept: Kept, live: bool) -> bool:
        return not (live and kept.expires_at is not None and kept.expires_at <= self._shared.now())

    def _answer(self, items: dict[Place, Kept], read: Read, live: bool) -> Any:
        if isinstance(read, Get):
            there = items.get(read.place)
            return there.row if there and self._counts(there, live) else None
        rows = [kept.row for kept in items.values() if self._counts(kept, live)]
        match read:
            case Search(prefix, condition, limit, offset):
                found = sorted(_found(rows, prefix, condition), key=_newest_first)
                return found[offset : offset + limit]
            case Count(prefix, condition):
                return len(_found(rows, prefix, condition))
            case ListNamespaces():
                return page((row.namespace for row in rows), read)

    def _write(self, items: dict[Place, Kept], write: Write, live: bool) -> Written:
        before = items.pop(write.place, None)
        if write.document is None:
            return Written(0)
        if before and not self._counts(before, live):
            before = None
        now = self._shared.now()
        ttl = before.ttl if before and write.keeps_ttl else write.ttl
        row = self._row(write._replace(ttl=ttl), before.row.created_at if before else now, now)
        items[write.place] = Kept(row, ttl, _after(now, ttl))
        return Written(row.version, row.created_at, row.updated_at)

    def _row(self, write: Write, created_at: datetime, updated_at: datetime) -> Row:
        version, has_ttl = next(self._shared.versions), write.ttl is not None
        return Row(*write.place, write.document or b"", version, created_at, updated_at, has_ttl)


class _Locked:
    """The items, while nobody else has them; `ConfigError` before the set-up."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def __enter__(self) -> dict[Place, Kept]:
        if not self._shared.is_set_up:
            raise ConfigError("there is no store: call setup() once")
        self._shared.lock.acquire()
        return self._shared.items

    def __exit__(self, *exc_info: object) -> None:
        self._shared.lock.release()


def _found(rows: Iterable[Row], prefix: str, condition: AllOf) -> list[Row]:
    below = (row for row in rows if _is_below(row.namespace, prefix))
    return [row for row in below if holds(condition, orjson.loads(row.document))]


def _is_below(namespace: str, prefix: str) -> bool:
    return not prefix or namespace == prefix or namespace.startswith(f"{prefix}.")


def _newest_first(row: Row) -> Any:
    return -row.updated_at.timestamp(), row.namespace.split("."), row.key


def _after(now: datetime, micros: int | None) -> datetime | None:
    return None if micros is None else now + timedelta(microseconds=micros)


def _is_wanted(item: Restored, there: Kept | None, on_conflict: OnConflict) -> bool:
    if there is None or on_conflict == "replace":
        return True
    return on_conflict == "newer" and item.updated_at > there.row.updated_at
