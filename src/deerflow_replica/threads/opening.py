"""The thread map that a configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .base import ThreadMap
from .inmemory import InMemoryThreadMap

if TYPE_CHECKING:
    from .._drivers.databases import Databases
    from ..config import AppConfig
    from ..config.targets import Target

_NAMES = ("database", "collection")  # MongoDB's, as its driver calls what it refuses


@asynccontextmanager
async def open_thread_map(config: AppConfig, *, databases: Databases | None = None) -> AsyncIterator[ThreadMap]:
    """Open the map of section `user_thread_mapping`, and close it at the end.

    Raises `ConfigError` for names and addresses that cannot be meant, `MissingExtraError` when its driver is not
    installed, `StoreUnavailableError` when the server is away. `databases` shares connections with other parts of a
    replica.
    """
    from ..config.targets import problem_at, target_of

    target = target_of(config, "user_thread_mapping")
    async with AsyncExitStack() as stack:
        try:
            threads = await stack.enter_async_context(_built(config, target, databases))
        except ConfigError as error:
            (problem,) = error.problems
            key = f"user_thread_mapping.mongo_{problem.key}" if problem.key in _NAMES else target.key
            raise problem_at(config, key, problem.message) from None
        yield threads


def _built(config: AppConfig, target: Target, databases: Databases | None) -> ThreadMap:
    section = config.user_thread_mapping
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
    if target.kind == "redis":
        from .redis import RedisThreadMap

        shared_connection = databases.redis(target.url) if databases else None
        return RedisThreadMap(target.url, key_prefix=section.redis_key_prefix, **common, _database=shared_connection)
    from .mongodb import MongoThreadMap

    shared_client = databases.mongo(target.url) if databases else None
    collection = section.mongo_collection or section.table
    return MongoThreadMap(
        target.url, database=section.mongo_database, collection=collection, **common, _database=shared_client
    )
