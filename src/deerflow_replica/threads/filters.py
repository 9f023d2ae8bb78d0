"""JSON equality, where the database has none of its own."""

from __future__ import annotations

import json
from typing import Any


def metadata_matches(stored: str, wanted: str) -> bool:
    """JSON equality on each top-level key that is wanted; null equals only a null that is there."""
    metadata = json.loads(stored)
    return all(key in metadata and _same(metadata[key], value) for key, value in json.loads(wanted).items())


def _same(one: Any, other: Any) -> bool:
    """JSON equality: numbers by value, `true` is not 1, objects and arrays whole."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
