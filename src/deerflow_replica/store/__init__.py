"""LangGraph stores that many replicas share without losing a write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import SharedStore
from .filters import matches
from .labels import decode_label, encode_label
from .migrate import aimport_langgraph_store, import_langgraph_store
from .opening import open_store
from .values import ImportReport, VersionedItem

if TYPE_CHECKING:
    from .mongodb import MongoStore
    from .postgres import PostgresStore
    from .sqlite import SqliteStore

__all__ = [
    "ImportReport",
    "MongoStore",
    "PostgresStore",
    "SharedStore",
    "SqliteStore",
    "VersionedItem",
    "aimport_langgraph_store",
    "decode_label",
    "encode_label",
    "import_langgraph_store",
    "matches",
    "open_store",
]


def __getattr__(name: str) -> Any:
    """Backends with a driver are imported when they are asked for."""
    if name == "MongoStore":
        from .mongodb import MongoStore

        return MongoStore
    if name == "PostgresStore":
        from .postgres import PostgresStore

        return PostgresStore
    if name == "SqliteStore":
        from .sqlite import SqliteStore

        return SqliteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
