"""Where a section's data is: the kind of backend and the file or URL, with every fallback applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, ConfigProblem
from .app import AppConfig
from .connections import connection_of
from .loading import working_directory
from .masking import masked
from .provenance import Provenance

Kind = Literal["memory", "sqlite", "postgres", "redis", "mongo"]
_OUR_FILE = "deerflow_replica.db"
_DEERFLOW_FILE = "deerflow.db"


@dataclass(frozen=True, slots=True)
class Target:
    """`url` is an absolute SQLite path (or `:memory:`), a DSN or a URL, empty for `memory`; `key` is what held it."""

    kind: Kind
    url: str
    key: str
    schema: str | None = None

    def __repr__(self) -> str:
        return f"Target({self.kind!r}, {masked(self.url)!r}, {self.key!r}, {self.schema!r})"


def target_of(config: AppConfig, section: str) -> Target:
    """For `database, stream_bridge, checkpointer, store, user_thread_mapping` or `model_feedback`.

    `checkpointer` follows `database` when it is not configured. Relative paths start at the project root.
    """
    if section == "stream_bridge":
        return _bridge(config)
    if section == "database" or (section == "checkpointer" and config.checkpointer is None):
        return _database(config, _DEERFLOW_FILE if section == "checkpointer" else _OUR_FILE)
    kind, url, key = connection_of(config, section)
    own_schema: str | None = getattr(config, section).postgres_schema or None
    schema = own_schema or (config.database.postgres_schema or None if key[0] == "database" else None)
    if kind == "sqlite":
        url = _sqlite_url(config, section, url)
    return Target(kind, url or "", ".".join(key), schema if kind == "postgres" else None)  # type: ignore[arg-type]


def memory_folder(config: AppConfig) -> Path:
    """The absolute folder of file memory: `backend_config.storage_path`, else a legacy `storage_path` that is no
    `.json` file, else `DEER_FLOW_HOME` as it was at load, else `.deer-flow`.
    """
    legacy = (config.memory.model_extra or {}).get("storage_path")
    named = config.memory.backend_config.get("storage_path")
    if not named and isinstance(legacy, str) and not legacy.endswith(".json"):
        named = legacy
    return _root(config) / (named or _provenance(config).home or ".deer-flow")


def place_of(config: AppConfig, key: str) -> str | None:
    """`config.yaml:5:14`, or None for what came from no file."""
    place = _provenance(config).own_place(tuple(key.split(".")))
    return str(place) if place is not None and place.line is not None else None


def problem_at(config: AppConfig, key: str, message: str) -> ConfigError:
    """The error for a value that is right in itself and cannot be served, with its place."""
    place = _provenance(config).own_place(tuple(key.split(".")))
    return ConfigError(ConfigProblem(key, message, *(place or (None, None, None))))


def _database(config: AppConfig, file: str) -> Target:
    database = config.database
    if database.backend == "postgres":
        return Target("postgres", database.postgres_url, "database.postgres_url", database.postgres_schema or None)
    if database.backend == "sqlite":
        return Target("sqlite", str(_sqlite_folder(config) / file), "database.sqlite_dir")
    return Target("memory", "", "database.backend")


def _bridge(config: AppConfig) -> Target:
    if config.stream_bridge.type == "redis":
        return Target("redis", config.stream_bridge.redis_url or "", "stream_bridge.redis_url")
    return Target("memory", "", "stream_bridge.type")


def _sqlite_url(config: AppConfig, section: str, named: str | None) -> str:
    if named is None:
        return str(_root(config) / "store.db" if section == "checkpointer" else _sqlite_folder(config) / _OUR_FILE)
    path = named.removeprefix("sqlite:///")
    return path if path == ":memory:" else str(_root(config) / path)


def _sqlite_folder(config: AppConfig) -> Path:
    return _root(config) / config.database.sqlite_dir


def _root(config: AppConfig) -> Path:
    return Path(_provenance(config).project_root or working_directory())


def _provenance(config: AppConfig) -> Provenance:
    return config._provenance


__all__ = ["Kind", "Target", "masked", "memory_folder", "place_of", "problem_at", "target_of"]
