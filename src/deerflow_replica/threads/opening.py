"""The thread map that a configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from .base import ThreadMap
from .inmemory import InMemoryThreadMap

if TYPE_CHECKING:
    from .._drivers.databases import Databases
    from ..config import AppConfig


@asynccontextmanager
async def open_thread_map(config: AppConfig, *, databases: Databases | None = None) -> AsyncIterator[ThreadMap]:
    """Open the map of section `user_thread_mapping`, and close it at the end.

    Raises `ConfigError` for a type that is not available yet, `MissingExtraError` when its driver is not installed,
    `StoreUnavailableError` when the server is away. `databases` shares connections with other parts of a replica.
    """
    async with _built(config, databases) as threads:
        yield threads


def _built(config: AppConfig, databases: Databases | None) -> ThreadMap:
    from ..config.targets import problem_at, target_of

    section = config.user_thread_mapping
    target = target_of(config, "user_thread_mapping")
    common: dict[str, Any] = {
        "tenant": section.tenant,
        "ttl_seconds": section.ttl_seconds,
        "tombstone_seconds": section.tombstone_seconds,
    }
    if target.kind == "memory":
        return InMemoryThreadMap(**common)
    if target.kind == "sqlite":
        from .sqlite import SqliteThreadMap

        shared_file = databases.sqlite(target.url) if databases and target.url else None
        return SqliteThreadMap(target.url or "", table=section.table, **common, _database=shared_file)
    if target.kind == "postgres":
        from .postgres import PostgresThreadMap

        shared_pool = databases.postgres(target.url) if databases and target.url else None
        return PostgresThreadMap(
            target.url, schema=target.schema or None, table=section.table, **common, _database=shared_pool
        )
    raise problem_at(config, "user_thread_mapping.type", f"{target.kind} is not available yet")
