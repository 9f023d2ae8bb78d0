"""Who owns a thread, and which threads a user has: claimed atomically across replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .access import claim_for_run
from .base import ThreadMap
from .inmemory import InMemoryThreadMap
from .opening import open_thread_map
from .thread_meta import ThreadMetaThreadMap
from .user_store import UserThreadStore
from .values import ANY_USER, UNSET, Claim, ThreadMappingItem, ThreadPage, ThreadRecord

if TYPE_CHECKING:
    from .mongodb import MongoThreadMap
    from .postgres import PostgresThreadMap
    from .redis import RedisThreadMap
    from .sqlite import SqliteThreadMap

__all__ = [
    "ANY_USER",
    "UNSET",
    "Claim",
    "InMemoryThreadMap",
    "MongoThreadMap",
    "PostgresThreadMap",
    "RedisThreadMap",
    "SqliteThreadMap",
    "ThreadMap",
    "ThreadMappingItem",
    "ThreadMetaThreadMap",
    "ThreadPage",
    "ThreadRecord",
    "UserThreadStore",
    "claim_for_run",
    "open_thread_map",
]


def __getattr__(name: str) -> Any:
    """Backends with a driver are imported when they are asked for."""
    if name == "MongoThreadMap":
        from .mongodb import MongoThreadMap

        return MongoThreadMap
    if name == "RedisThreadMap":
        from .redis import RedisThreadMap

        return RedisThreadMap
    if name == "PostgresThreadMap":
        from .postgres import PostgresThreadMap

        return PostgresThreadMap
    if name == "SqliteThreadMap":
        from .sqlite import SqliteThreadMap

        return SqliteThreadMap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
