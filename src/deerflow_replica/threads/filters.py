"""JSON equality, where the database has none of its own."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any


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
