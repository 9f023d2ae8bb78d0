"""Which threads a list asks for, where the database cannot tell."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from . import rules
from .paging import Filters, Query, position
from .rules import Row


def matches(row: Row, filters: Filters, *, now: int) -> bool:
    """Whether it lives and is what a list asks for."""
    return (
        rules.is_live(row, now)
        and filters.status in (None, row.status)
        and (filters.ids is None or row.thread_id in filters.ids)
        and (filters.metadata == "{}" or metadata_matches(row.metadata, filters.metadata))
    )


def selected(rows: Iterable[Row], query: Query, now: int) -> list[Row]:
    """The page of a query, out of all rows that could be on it."""
    is_down = query.sort_order == "desc"
    places = {position(row, query.sort_by): row for row in rows if row.user_id == query.user_id}
    beyond = (place for place in places if (place < query.after if is_down else place > query.after))
    found = (places[place] for place in sorted(beyond, reverse=is_down))
    matching = [row for row in found if matches(row, query.filters, now=now)]
    return matching[query.offset : query.offset + query.limit]


def metadata_matches(stored: str, wanted: str) -> bool:
    """JSON equality on each top-level key that is wanted; null equals only a null that is there."""
    metadata = _decoded(stored)
    return all(key in metadata and _same(metadata[key], value) for key, value in _decoded(wanted).items())


def _decoded(text: str) -> dict[str, Any]:
    """Numbers are what is written, as in databases: a float would make 1e23 another number than its digits."""
    return dict(json.loads(text, parse_float=Decimal))


def _same(one: Any, other: Any) -> bool:
    """JSON equality: numbers by value, `true` is not 1, objects and arrays whole."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
