"""What the thread map takes and gives: records, claims, pages, and two explicit sentinels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, TypeAlias


class AnyUser(Enum):
    """The type of `ANY_USER`."""

    ANY_USER = "any user"


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


ANY_USER: Final = AnyUser.ANY_USER
"""Trusted code only: no owner filter."""

UNSET: Final = Unset.UNSET
"""Leave it as it is, or take the map's default."""

SortBy: TypeAlias = Literal["updated_at", "created_at"]
SortOrder: TypeAlias = Literal["desc", "asc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRecord:
    """One thread as it was when it was read. Times are aware, in UTC, with microseconds, from the store's clock.

    `user_id` is None only for a row that DeerFlow wrote without an owner.
    """

    thread_id: str
    user_id: str | None
    assistant_id: str | None = None
    display_name: str | None = None
    status: str = "idle"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime
    updated_at: datetime
    version: int = 1
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to one claim. `record` is None unless it was granted: a stranger never learns the owner's name."""

    thread_id: str
    granted: bool
    created: bool
    record: ThreadRecord | None


@dataclass(frozen=True, slots=True)
class ThreadPage:
    """One page of a list. `next_cursor` is None exactly on the last page."""

    items: tuple[ThreadRecord, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class ThreadMappingItem:
    """One entry of the key-value face of the map: a thread id and its value."""

    key: str
    value: dict[str, Any]
