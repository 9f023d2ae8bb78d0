"""LangGraph stores that many replicas share without losing a write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import SharedStore
from .filters import matches
from .labels import decode_label, encode_label
from .opening import open_store
from .values import ImportReport, VersionedItem

if TYPE_CHECKING:
    from .postgres import PostgresStore

__all__ = [
    "ImportReport",
    "PostgresStore",
    "SharedStore",
    "VersionedItem",
    "decode_label",
    "encode_label",
    "matches",
    "open_store",
]


def __getattr__(name: str) -> Any:
    """Backends with a driver are imported when they are asked for."""
    if name == "PostgresStore":
        from .postgres import PostgresStore

        return PostgresStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
