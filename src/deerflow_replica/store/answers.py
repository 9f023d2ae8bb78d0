"""A backend's rows as what callers get: decoded for each caller, without the labels of the view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from langgraph.store.base import Item, SearchItem

from ..errors import VersionConflictError
from .labels import split
from .values import Conflict, Row, VersionedItem, Write, Written


def item(row: Row | None, scope: tuple[str, ...]) -> Item | None:
    return None if row is None else Item(**_fields(row, scope))


def versioned(row: Row | None, scope: tuple[str, ...]) -> VersionedItem | None:
    return None if row is None else VersionedItem(**_fields(row, scope), version=row.version)


def found(rows: Sequence[Row], scope: tuple[str, ...]) -> list[SearchItem]:
    """Positional and without a function for each: there may be thousands."""
    cut, loads = len(scope), orjson.loads
    last, labels = "", tuple[str, ...]()
    items: list[SearchItem] = []
    for namespace, key, document, _, created_at, updated_at, _, score in rows:
        if namespace != last:
            last, labels = namespace, tuple(namespace.split(".")[cut:])
        items.append(SearchItem(labels, key, loads(document), created_at, updated_at, score))
    return items


def namespaces(found_: Sequence[str], scope: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [split(namespace)[len(scope) :] for namespace in found_]


def stored(write: Write, written: Written, scope: tuple[str, ...]) -> VersionedItem | None:
    """The item that a write left."""
    if write.document is None or written.created_at is None or written.updated_at is None:
        return None
    return versioned(
        Row(*write.place, write.document, written.version, written.created_at, written.updated_at, False), scope
    )


def met(outcome: Written | Conflict, write: Write, scope: tuple[str, ...]) -> Written:
    """What a conditional write did; `VersionConflictError` when it met another version."""
    if isinstance(outcome, Written):
        return outcome
    namespace, key = split(write.place.namespace)[len(scope) :], write.place.key
    raise VersionConflictError(
        f"{namespace} {key!r} is at version {outcome.current}, not {write.if_version}",
        current=outcome.current,
        namespace=namespace,
        key=key,
        expected=write.if_version,
    )


def _fields(row: Row, scope: tuple[str, ...]) -> dict[str, Any]:
    return {
        "value": orjson.loads(row.document),
        "key": row.key,
        "namespace": split(row.namespace)[len(scope) :],
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }
