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
            own = problem.key.startswith("user_thread_mapping.")
            raise error if own else problem_at(config, target.key, problem.message) from None
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
    return _in_mongodb(config, target.url, databases, common)


def _in_mongodb(config: AppConfig, url: str, databases: Databases | None, common: dict[str, Any]) -> ThreadMap:
    from ..config.targets import problem_at
    from . import validation
    from .mongodb import MongoThreadMap

    section = config.user_thread_mapping
    try:
        database = validation.database_name(section.mongo_database)
    except ValueError as error:
        raise problem_at(config, "user_thread_mapping.mongo_database", str(error)) from None
    try:
        collection = validation.collection_name(section.mongo_collection or section.table)
    except ValueError as error:
        raise problem_at(config, "user_thread_mapping.mongo_collection", str(error)) from None
    shared_client = databases.mongo(url) if databases else None
    return MongoThreadMap(url, database=database, collection=collection, **common, _database=shared_client)
