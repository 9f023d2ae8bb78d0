"""What claim, update, transfer and delete mean, as pure functions of one stored row and the store's clock.

Backends only read, insert, and replace one row atomically; every rule about owners, tombstones, expiry and versions
is here. Times are integer microseconds since 1970, UTC.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from ..errors import VersionConflictError
from .validation import MAX_MICROSECONDS, fitting, json_text
from .values import ANY_USER, UNSET, AnyUser, Claim, ThreadRecord, Unset

T = TypeVar("T")

BUSY = "busy"  # a busy thread does not expire
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A thread as it is stored. `deleted_at` makes it a tombstone; `change` names the write that made it what it is.

    An empty `user_id` is nobody's, as a row may be that DeerFlow wrote; no caller can have it.
    """

    thread_id: str
    user_id: str
    assistant_id: str | None
    display_name: str | None
    status: str
    metadata: str
    created_at: int
    updated_at: int
    version: int
    ttl: int | None
    expires_at: int | None
    deleted_at: int | None
    change: str


class Outcome(NamedTuple, Generic[T]):
    """What a rule decided: the caller's answer, and the row to store instead, if any."""

    answer: T
    row: Row | None = None


Rule: TypeAlias = Callable[[int, Row | None], Outcome[T]]


class NewThread(NamedTuple):
    """The fields of a thread that a claim makes if there is none."""

    user_id: str
    assistant_id: str | None
    display_name: str | None
    status: str
    metadata: str
    ttl: int | None
    change: str

    def row(self, thread_id: str, now: int) -> Row:
        return Row(
            thread_id=thread_id,
            user_id=self.user_id,
            assistant_id=self.assistant_id,
            display_name=self.display_name,
            status=self.status,
            metadata=self.metadata,
            created_at=now,
            updated_at=now,
            version=1,
            ttl=self.ttl,
            expires_at=_expiry(now, self.ttl),
            deleted_at=None,
            change=self.change,
        )


class Inserted(NamedTuple):
    """What one insert made: the store's time of it, and the ids."""

    at: int
    keys: set[str]


class Changes(NamedTuple):
    """The fields of an update."""

    assistant_id: str | Unset | None
    display_name: str | Unset | None
    status: str | Unset
    metadata: str
    replace_metadata: bool
    remove_metadata: tuple[str, ...]
    ttl: int | Unset | None
    touch: bool
    if_version: int | None
    change: str


def ended_at(row: Row, now: int) -> int | None:
    """When the thread was deleted or expired; None while it lives."""
    if row.deleted_at is not None:
        return row.deleted_at
    if row.expires_at is not None and row.expires_at <= now and row.status != BUSY:
        return row.expires_at
    return None


def is_live(row: Row | None, now: int) -> bool:
    return row is not None and ended_at(row, now) is None


def binding_owner(row: Row | None, now: int, tombstone: int) -> str | None:
    """Who alone may claim this id: the owner, or the former owner while the tombstone binds; None: anyone."""
    if row is None:
        return None
    ended = ended_at(row, now)
    return row.user_id if ended is None or ended + tombstone > now else None


def visible(row: Row | None, now: int, user_id: str | AnyUser) -> Row | None:
    """The row, if the thread lives and this user may see it."""
    if row is None or ended_at(row, now) is not None or user_id not in (ANY_USER, row.user_id):
        return None
    return row


def may_access(row: Row | None, now: int, user_id: str | None, *, require_existing: bool, tombstone: int) -> bool:
    if row is not None and is_live(row, now):
        return row.user_id == user_id
    if require_existing:
        return False
    owner = binding_owner(row, now, tombstone)
    return owner is None or owner == user_id


def claim(thread_id: str, new: NewThread, tombstone: int) -> Rule[Claim]:
    def rule(now: int, row: Row | None) -> Outcome[Claim]:
        if row is not None and row.user_id == new.user_id and is_live(row, now):
            return Outcome(Claim(thread_id, True, row.change == new.change, record_of(row)))
        if binding_owner(row, now, tombstone) not in (None, new.user_id):
            return Outcome(Claim(thread_id, False, False, None))
        made = new.row(thread_id, now)
        return Outcome(Claim(thread_id, True, True, record_of(made)), made)

    return rule


def update(user_id: str | AnyUser, changes: Changes) -> Rule[ThreadRecord | None]:
    def rule(now: int, row: Row | None) -> Outcome[ThreadRecord | None]:
        row = visible(row, now, user_id)
        if row is None:
            return Outcome(None)
        if row.change == changes.change:
            return Outcome(record_of(row))
        if changes.if_version not in (None, row.version):
            raise VersionConflictError(f"the thread is at version {row.version}", current=record_of(row))
        updated = _updated(row, changes, now)
        return Outcome(record_of(updated), updated)

    return rule


def touch(user_id: str | AnyUser, change: str) -> Rule[bool]:
    def rule(now: int, row: Row | None) -> Outcome[bool]:
        if visible(row, now, user_id) is None or row is None:
            return Outcome(False)
        if row.change == change:
            return Outcome(True)
        return Outcome(True, _touched(row, now, change))

    return rule


def transfer(from_user_id: str, to_user_id: str, if_version: int | None, change: str) -> Rule[bool]:
    def rule(now: int, row: Row | None) -> Outcome[bool]:
        if row is not None and row.change == change:
            return Outcome(True)
        row = visible(row, now, from_user_id)
        if row is None or if_version not in (None, row.version):
            return Outcome(False)
        if from_user_id == to_user_id:
            return Outcome(True)
        return Outcome(True, row._replace(user_id=to_user_id, version=row.version + 1, change=change))

    return rule


def delete(user_id: str | AnyUser, change: str) -> Rule[bool]:
    def rule(now: int, row: Row | None) -> Outcome[bool]:
        if row is not None and row.change == change:
            return Outcome(True)
        row = visible(row, now, user_id)
        return Outcome(False) if row is None else Outcome(True, buried(row, now, change))

    return rule


def buried(row: Row, ended: int, change: str) -> Row:
    """The tombstone of a thread: id, former owner, time, and nothing else."""
    return row._replace(
        assistant_id=None,
        display_name=None,
        status="idle",
        metadata="{}",
        ttl=None,
        expires_at=None,
        deleted_at=ended,
        change=change,
    )


def record_of(row: Row) -> ThreadRecord:
    """The public, detached face of a row."""
    return ThreadRecord(
        thread_id=row.thread_id,
        user_id=row.user_id or None,
        assistant_id=row.assistant_id,
        display_name=row.display_name,
        status=row.status,
        metadata=_decoded(row.metadata),
        created_at=_instant(row.created_at),
        updated_at=_instant(row.updated_at),
        version=row.version,
        expires_at=None if row.expires_at is None else _instant(row.expires_at),
    )


def _updated(row: Row, changes: Changes, now: int) -> Row:
    version = row.version + 1
    if changes.ttl is not UNSET:
        row = row._replace(ttl=changes.ttl, expires_at=_expiry(now, changes.ttl))
    if changes.touch:
        row = _touched(row, now, changes.change)
    return row._replace(
        assistant_id=row.assistant_id if changes.assistant_id is UNSET else changes.assistant_id,
        display_name=row.display_name if changes.display_name is UNSET else changes.display_name,
        status=row.status if changes.status is UNSET else changes.status,
        metadata=_merged(row.metadata, changes),
        version=version,
        change=changes.change,
    )


def _touched(row: Row, now: int, change: str) -> Row:
    """The next version: strictly later than before, whatever the clock says, and its expiry renewed."""
    return row._replace(
        updated_at=max(now, row.updated_at + 1),
        version=row.version + 1,
        expires_at=None if row.ttl is None else _expiry(now, row.ttl),
        change=change,
    )


def _merged(stored: str, changes: Changes) -> str:
    if changes.metadata == "{}" and not changes.replace_metadata and not changes.remove_metadata:
        return stored
    merged = {} if changes.replace_metadata else _decoded(stored)
    merged.update(_decoded(changes.metadata))
    for key in changes.remove_metadata:
        merged.pop(key, None)
    return fitting(json_text(merged))


def _decoded(encoded: str) -> dict[str, Any]:
    return {} if encoded == "{}" else json.loads(encoded)


def _expiry(now: int, ttl: int | None) -> int | None:
    return None if ttl is None else min(now + ttl, MAX_MICROSECONDS)


def _instant(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
