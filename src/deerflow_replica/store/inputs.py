"""What callers pass in, checked before anything is sent. Every refusal is a `ValueError`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from langgraph.store.base import MatchCondition

from . import labels
from .filters import is_storable, parse
from .values import ListNamespaces, NamespacePattern, Place, Search

MAX_KEY_BYTES = 1024
_MOST_LABELS = 10_000  # PostgreSQL takes 65,535 parameters
MAX_TTL = 1000 * 365 * 86_400 * 1_000_000  # microseconds; what lives longer than a millennium may as well end there


def place(scope: tuple[str, ...], namespace: object, key: object, *, put: bool = False) -> Place:
    return Place(labels.joined((*scope, *labels.checked(namespace, put=put))), item_key(key))


def prefix(scope: tuple[str, ...], namespace: object) -> str:
    return labels.joined((*scope, *labels.checked(namespace)))


def item_key(key: object) -> str:
    if type(key) is str and len(key) <= MAX_KEY_BYTES and key.isascii() and "\x00" not in key:
        return key
    if not isinstance(key, str):
        raise ValueError(f"a key is a text, not {type(key).__name__}")  # noqa: TRY004  # all refusals are ValueError
    if not is_storable(key):
        raise ValueError("a key holds no U+0000 and no lone surrogate")
    if len(key) > MAX_KEY_BYTES or (not key.isascii() and len(key.encode()) > MAX_KEY_BYTES):
        raise ValueError(f"a key has at most {MAX_KEY_BYTES} bytes")
    return str.__str__(key)


def search(
    scope: tuple[str, ...],
    namespace_prefix: object,
    filter: Mapping[str, Any] | None,
    limit: object,
    offset: object,
    query: str | None,
    *,
    refresh: bool,
) -> Search:
    if query is not None and not isinstance(query, str):
        raise ValueError(f"a query is a text, not {type(query).__name__}")
    return Search(
        prefix(scope, namespace_prefix),
        parse(filter),
        whole_number("limit", limit),
        whole_number("offset", offset),
        query or None,
        refresh=refresh,
    )


def list_namespaces(
    scope: tuple[str, ...],
    conditions: Iterable[MatchCondition] | None,
    max_depth: object,
    limit: object,
    offset: object,
) -> ListNamespaces:
    patterns = [pattern(condition, scope) for condition in conditions or ()]
    if sum(len(one.labels) for one in patterns) > _MOST_LABELS:
        raise ValueError(f"the conditions of a list have at most {_MOST_LABELS} labels together")
    if scope:
        patterns.insert(0, NamespacePattern("prefix", scope))
    return ListNamespaces(
        tuple(patterns),
        None if max_depth is None else whole_number("max_depth", max_depth) + len(scope),
        whole_number("limit", limit),
        whole_number("offset", offset),
    )


def pattern(condition: MatchCondition, scope: tuple[str, ...]) -> NamespacePattern:
    if condition.match_type not in ("prefix", "suffix"):
        raise ValueError(f"Unsupported match type: {condition.match_type}")
    wanted = tuple(None if label == "*" else label for label in labels.checked(condition.path))
    return NamespacePattern(condition.match_type, wanted, after=len(scope))


def whole_number(name: str, value: object, smallest: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
        raise ValueError(f"{name} must be an int and at least {smallest}, not {value!r}")
    return min(int(value), 2**63 - 1)


def version(value: object) -> int:
    return whole_number("if_version", value)


def micros(minutes: object, name: str = "ttl") -> int | None:
    """Minutes as microseconds; None stays None."""
    if minutes is None:
        return None
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)):
        raise ValueError(f"{name} must be a number of minutes, not {minutes!r}")  # noqa: TRY004  # as above
    if not minutes > 0 or (isinstance(minutes, float) and not math.isfinite(minutes)):
        raise ValueError(f"{name} must be greater than 0 and finite, not {minutes!r}")
    return MAX_TTL if minutes >= MAX_TTL / 60_000_000 else max(1, round(minutes * 60_000_000))


def index_fields(index: object) -> Literal[False] | tuple[str, ...] | None:
    """`put`'s argument: None for the store's own fields, False for none, or a list of paths."""
    if index is None or index is False:
        return index
    if isinstance(index, (list, tuple)) and all(isinstance(path, str) for path in index):
        return tuple(index)
    raise ValueError("index must be None, False or a list of paths")
