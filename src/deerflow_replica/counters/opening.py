"""The counters that a configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .base import ModelCounters
from .health import ModelHealth
from .inmemory import InMemoryModelCounters

if TYPE_CHECKING:
    from .._drivers.databases import Databases
    from ..config import AppConfig
    from ..config.targets import Target

_KEYS = {
    "database": "model_feedback.mongo_database",
    "collection": "model_feedback.mongo_collection",
    "key_prefix": "model_feedback.redis_key_prefix",
}


@asynccontextmanager
async def open_model_counters(
    config: AppConfig, *, databases: Databases | None = None, replica_id: str | None = None
) -> AsyncIterator[ModelCounters]:
    """Open the counters of section `model_feedback`, and close them at the end; in this process only if not `enabled`.

    Raises `ConfigError` for names and addresses that cannot be meant, `MissingExtraError` when its driver is not
    installed, `StoreUnavailableError` when the server is away. `databases` shares connections with other parts of a
    replica.
    """
    from ..config.targets import problem_at, target_of

    target = target_of(config, "model_feedback")
    async with AsyncExitStack() as stack:
        try:
            counters = await stack.enter_async_context(_built(config, target, databases, replica_id))
        except ConfigError as error:
            (problem,) = error.problems
            raise problem_at(config, _KEYS.get(problem.key, target.key), problem.message) from None
        yield counters


def model_health(config: AppConfig, counters: ModelCounters) -> ModelHealth:
    """The health of `model_feedback.health`; where `circuit_breaker` is written, that says what it can say."""
    settings = config.model_feedback.health.model_dump()
    if "circuit_breaker" in config.model_fields_set:
        breaker = config.circuit_breaker
        own = config.model_feedback.health.model_fields_set
        # DeerFlow takes any integer; a circuit that is open for no time at all is none.
        seconds = float(max(1, breaker.recovery_timeout_sec))
        given = {"failure_threshold": breaker.failure_threshold, "open_seconds": seconds}
        settings |= {name: value for name, value in given.items() if name not in own}
        if "max_open_seconds" not in own:
            settings["max_open_seconds"] = max(settings["max_open_seconds"], settings["open_seconds"])
    return ModelHealth(counters, **settings)


def _built(config: AppConfig, target: Target, databases: Databases | None, replica_id: str | None) -> ModelCounters:
    section = config.model_feedback
    common: dict[str, Any] = {
        "durability": section.durability,
        "flush_interval_seconds": section.flush_interval_seconds,
        "flush_max_events": section.flush_max_events,
        "max_models": section.max_models,
        "replica_id": replica_id,
    }
    if not section.enabled:
        return InMemoryModelCounters(**common)
    if target.kind == "memory":
        return InMemoryModelCounters(**common)
    if target.kind == "sqlite":
        from .sqlite import SqliteModelCounters

        shared_file = databases.sqlite(target.url) if databases and target.url else None
        return SqliteModelCounters(target.url or "", table=section.table, _database=shared_file, **common)
    if target.kind == "postgres":
        from .postgres import PostgresModelCounters

        shared_pool = databases.postgres(target.url) if databases and target.url else None
        where: dict[str, Any] = {"schema": target.schema, "table": section.table, "_database": shared_pool}
        return PostgresModelCounters(target.url, **where, **common)
    if target.kind == "redis":
        from .redis import RedisModelCounters

        shared_connection = databases.redis(target.url) if databases else None
        return RedisModelCounters(
            target.url, key_prefix=section.redis_key_prefix, _database=shared_connection, **common
        )
    from .mongodb import MongoModelCounters

    shared_client = databases.mongo(target.url) if databases else None
    collection = section.mongo_collection or section.table
    return MongoModelCounters(
        target.url, database=section.mongo_database, collection=collection, _database=shared_client, **common
    )
