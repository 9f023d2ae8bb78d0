"""The counters that a configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from .base import ModelCounters
from .health import ModelHealth
from .inmemory import InMemoryModelCounters

if TYPE_CHECKING:
    from .._drivers.databases import Databases
    from ..config import AppConfig


@asynccontextmanager
async def open_model_counters(
    config: AppConfig, *, databases: Databases | None = None, replica_id: str | None = None
) -> AsyncIterator[ModelCounters]:
    """Open the counters of section `model_feedback`, and close them at the end; in this process only if not `enabled`.

    Raises `ConfigError` for a type that is not available yet, `MissingExtraError` when its driver is not installed,
    `StoreUnavailableError` when the server is away. `databases` shares connections with other parts of a replica.
    """
    async with _built(config, databases, replica_id) as counters:
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


def _built(config: AppConfig, databases: Databases | None, replica_id: str | None) -> ModelCounters:
    from ..config.targets import problem_at, target_of

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
    target = target_of(config, "model_feedback")
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
    raise problem_at(config, "model_feedback.type", f"{target.kind} is not available yet")
