"""What a caller passes in, checked and put into the form that the rules and backends take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from . import validation
from .paging import Filters, Query, binding, read_cursor, start
from .rules import NewThread
from .values import ANY_USER, UNSET, AnyUser, SortBy, SortOrder, Unset

_MOST_OFFSET = 2**62  # what every backend's integer can hold


def user_or_any(user_id: str | AnyUser) -> str | AnyUser:
    return ANY_USER if user_id is ANY_USER else validation.user_key(user_id)


def kept_or_text(name: str, value: str | Unset | None, longest: int) -> str | Unset | None:
    return UNSET if value is UNSET else validation.optional_text(name, value, longest)


def new_thread(
    user_id: str,
    assistant_id: str | None,
    display_name: str | None,
    status: str,
    metadata: Mapping[str, Any] | None,
    ttl: int | None,
) -> NewThread:
    return NewThread(
        user_id=validation.user_key(user_id),
        assistant_id=validation.optional_text("assistant_id", assistant_id, 255),
        display_name=validation.optional_text("display_name", display_name, 1024),
        status=validation.status_text(status),
        metadata=validation.metadata_text(metadata),
        ttl=ttl,
        change=change_name(),
    )


def filters(status: str | None, metadata: Mapping[str, Any] | None, ids: Iterable[str | UUID] | None) -> Filters:
    return Filters(
        status=None if status is None else validation.status_text(status),
        metadata=validation.metadata_text(metadata),
        ids=None if ids is None else frozenset(validation.thread_keys(ids)),
    )


def query(
    tenant: str,
    user_id: str,
    filtered: Filters,
    limit: int,
    cursor: str | None,
    offset: int,
    sort_by: SortBy,
    sort_order: SortOrder,
) -> Query:
    """One row more than the page shows: if it comes, there is a next page."""
    user = validation.user_key(user_id)
    validation.one_of("sort_by", sort_by, ("updated_at", "created_at"))
    validation.one_of("sort_order", sort_order, ("desc", "asc"))
    skipped = min(validation.whole_number("offset", offset, 0), _MOST_OFFSET)
    if cursor is not None and skipped:
        raise ValueError("pass either a cursor or an offset")
    after = start(sort_order)
    if cursor is not None:
        after = read_cursor(cursor, binding(tenant, user, sort_by, sort_order, filtered))
    one_more = validation.whole_number("limit", limit, 1, 1000) + 1
    return Query(user, filtered, sort_by, sort_order, after, one_more, skipped)


def change_name() -> str:
    """A name for one write, by which a repeated attempt recognises that the first one had arrived."""
    return os.urandom(8).hex()
