"""Threads as Redis keeps them: the names of the keys, the text of a row, and its places in the orders.

A tenant is one slot. Its rows are the fields of one hash; every order is a sorted set. None of them has a time to
live: they say who owns what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import orjson

from . import rules
from .rules import NewThread, Row
from .values import SortBy

Place: TypeAlias = tuple[str, int]
"""A member of an order, and its score."""

_MICROS = 1_000_000
_BETWEEN = b"\x1e"  # rows in one text: a reply of many parts takes long to read, and no row has this letter


class ThreadKeys:
    """The names of every key of one tenant."""

    def __init__(self, prefix: str, tenant: str) -> None:
        self._tag = f"{{{prefix}:{tenant}}}"
        self.rows = f"{self._tag}:rows"
        self.expiring = f"{self._tag}:expiring"
        self.buried = f"{self._tag}:buried"

    def order(self, user_id: str, sort_by: SortBy) -> str:
        return f"{self._tag}:{sort_by}:{user_id}"

    def expiring_of(self, user_id: str) -> str:
        return f"{self._tag}:expiring:{user_id}"

    def of_user(self, user_id: str) -> list[str]:
        """Where a live thread stands that may expire."""
        orders = self.order(user_id, "updated_at"), self.order(user_id, "created_at")
        return [*orders, self.expiring_of(user_id), self.expiring]

    def places(self, row: Row | None) -> dict[str, Place]:
        """Where a row stands in the orders."""
        if row is None:
            return {}
        if row.deleted_at is not None:
            return {self.buried: (row.thread_id, row.deleted_at)}
        updated, created, *expiring = self.of_user(row.user_id)
        places = {
            updated: (member(row.updated_at, row.thread_id), 0),
            created: (member(row.created_at, row.thread_id), 0),
        }
        if row.expires_at is not None and row.status != rules.BUSY:
            places |= dict.fromkeys(expiring, (row.thread_id, row.expires_at))
        return places

    def moves(self, old: Row | None, new: Row | None) -> dict[str, tuple[str, str, int]]:
        """By order: the member that goes, the member that comes, its score."""
        before, after = self.places(old), self.places(new)
        return {
            key: _move(before.get(key), after.get(key))
            for key in before.keys() | after.keys()
            if before.get(key) != after.get(key)
        }


def member(micros: int, thread_id: str) -> str:
    """In an order of members with one score: by time, then by code point of the id."""
    return f"{micros:016x}:{thread_id}"


def beyond(place: tuple[int, str]) -> str:
    """Where a walk in either direction goes on after this place; no time is before 1970."""
    return f"({member(*place)}" if place[0] >= 0 else "("


def text_of(row: Row) -> str:
    stamps = (row.created_at, row.updated_at, row.version, row.ttl, row.expires_at, row.deleted_at)
    return " ".join([row.change, *("-" if stamp is None else str(stamp) for stamp in stamps)]) + _content(row)


def claim_arguments(new: NewThread) -> list[Any]:
    """What a script makes the row of when it knows the time."""
    life = ("", "") if new.ttl is None else divmod(new.ttl, _MICROS)
    return [new.change, *life, int(new.status != rules.BUSY), _content(new)]


def row_of(thread_id: str, text: bytes) -> Row:
    stamps, names, metadata = text.split(b"\n", 2)
    change, created_at, updated_at, version, *maybe = stamps.split(b" ")
    ttl, expires_at, deleted_at = (None if number == b"-" else int(number) for number in maybe)
    user_id, assistant_id, display_name, status = orjson.loads(names)
    return Row(
        thread_id=thread_id,
        user_id=user_id,
        assistant_id=assistant_id,
        display_name=display_name,
        status=status,
        metadata=metadata.decode(),
        created_at=int(created_at),
        updated_at=int(updated_at),
        version=int(version),
        ttl=ttl,
        expires_at=expires_at,
        deleted_at=deleted_at,
        change=change.decode(),
    )


def rows_of(reply: bytes) -> list[Row]:
    """Of a text with an id before each row."""
    found = (one.split(b"\n", 1) for one in reply.split(_BETWEEN) if one)
    return [row_of(thread_id.decode(), text) for thread_id, text in found]


def found_of(keys: Sequence[str], reply: bytes) -> Iterator[tuple[str, Row]]:
    """Of a text with a row for each of the keys, empty for none."""
    return ((key, row_of(key, text)) for key, text in zip(keys, reply.split(_BETWEEN), strict=True) if text)


def owners_of(keys: Sequence[str], reply: bytes) -> Iterator[tuple[str, str]]:
    return ((key, owner.decode()) for key, owner in zip(keys, reply.split(_BETWEEN), strict=True) if owner)


def _content(row: Row | NewThread) -> str:
    """What a script need not read: two lines, as JSON keeps line ends out of texts."""
    names = orjson.dumps([row.user_id, row.assistant_id, row.display_name, row.status]).decode()
    return f"\n{names}\n{row.metadata}"


def _move(old: Place | None, new: Place | None) -> tuple[str, str, int]:
    gone = old[0] if old is not None and (new is None or new[0] != old[0]) else ""
    return (gone, "", 0) if new is None else (gone, *new)
