"""What a list asks for, and the cursor that continues it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b

from .rules import Row
from .validation import json_text, thread_key
from .values import SortBy, SortOrder

_LOWEST = (-(2**63), "")
_HIGHEST = (2**63 - 1, "")
_LONGEST_CURSOR = 2048  # of our own, the longest thread id makes one of about 1,400 characters


@dataclass(frozen=True, slots=True)
class Filters:
    """Which of a user's live threads; `metadata` is the JSON text of an object whose keys must be equal."""

    status: str | None
    metadata: str
    ids: frozenset[str] | None

    @property
    def is_none(self) -> bool:
        """Every live thread will do."""
        return self.status is None and self.metadata == "{}" and self.ids is None


@dataclass(frozen=True, slots=True)
class Query:
    """One page: rows strictly after `after` in the total order `(sort key, thread_id)`; both turn with `sort_order`."""

    user_id: str
    filters: Filters
    sort_by: SortBy
    sort_order: SortOrder
    after: tuple[int, str]
    limit: int
    offset: int


def start(sort_order: SortOrder) -> tuple[int, str]:
    """The position before every row."""
    return _HIGHEST if sort_order == "desc" else _LOWEST


def position(row: Row, sort_by: SortBy) -> tuple[int, str]:
    return (row.updated_at if sort_by == "updated_at" else row.created_at, row.thread_id)


def binding(tenant: str, user_id: str, sort_by: SortBy, sort_order: SortOrder, filters: Filters) -> str:
    """What a cursor belongs to, as text: two lists with the same binding are the same list."""
    ids = None if filters.ids is None else sorted(filters.ids)
    metadata = json.dumps(json.loads(filters.metadata), sort_keys=True)
    return json_text([tenant, user_id, sort_by, sort_order, filters.status, metadata, ids])


def write_cursor(place: tuple[int, str], bound_to: str) -> str:
    body = urlsafe_b64encode(json_text(place).encode()).decode().rstrip("=")
    return f"{body}.{_seal(body, bound_to)}"


def read_cursor(cursor: object, bound_to: str) -> tuple[int, str]:
    """The position in a cursor; `ValueError` when it was altered or belongs to another list."""
    is_one = isinstance(cursor, str) and len(cursor) <= _LONGEST_CURSOR
    body, _, seal = str(cursor).partition(".") if is_one else ("", "", "")
    if not body.isascii() or seal != _seal(body, bound_to):
        raise ValueError("this cursor is damaged, or belongs to another user, order or filter")
    return _place(json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4))))


def _place(value: object) -> tuple[int, str]:
    """Anyone can make a seal, so what is sealed is checked like any other input."""
    match value:
        case [int() as sort_value, str() as thread_id] if _LOWEST[0] <= sort_value <= _HIGHEST[0]:
            return int(sort_value), thread_key(thread_id)
        case _:
            raise ValueError("this cursor is not one of a list")


def _seal(body: str, bound_to: str) -> str:
    """Detects damage and mix-ups. It keeps no secret: the owner filter, not the cursor, protects the rows."""
    return blake2b(f"{body}.{bound_to}".encode(), digest_size=12).hexdigest()
