"""The registry that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import RunRegistry
from .inmemory import InMemoryRunRegistry

if TYPE_CHECKING:
    from ..._drivers.databases import Databases
    from ...config import AppConfig


def run_registry(config: AppConfig, databases: Databases) -> RunRegistry:
    """The registry of `database.backend`, not yet open, over databases that it shares with others."""
    from ...config.targets import target_of

    target = target_of(config, "database")
    if target.kind == "sqlite":
        from .sqlite import SqliteRunRegistry

        return SqliteRunRegistry(_database=databases.sqlite(target.url))
    if target.kind == "postgres":
        from .postgres import PostgresRunRegistry

        return PostgresRunRegistry(schema=target.schema, _database=databases.postgres(target.url))
    return InMemoryRunRegistry()
