"""Which database a section means when it names none, and the problems of those that find none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .app import AppConfig

DERIVED_TYPE = ("user_thread_mapping", "model_feedback", "store")
_FALLBACK = {"postgres": ("database", "postgres_url"), "redis": ("stream_bridge", "redis_url")}


class Connection(NamedTuple):
    """What a section connects to: its kind, the URL or file as written, and the key that holds it."""

    kind: str
    url: str | None
    key: tuple[str, str]


def connection_of(config: AppConfig, name: str) -> Connection:
    """`name` is one of `DERIVED_TYPE`, or `checkpointer` when that section is there."""
    section = getattr(config, name)
    kind = "postgres" if section.type == "postgres-legacy" else section.type
    if kind == "memory":
        return Connection(kind, "", (name, "type"))
    if section.connection_string:
        return Connection(kind, section.connection_string, (name, "connection_string"))
    return _fallback(config, name, kind)


def _fallback(config: AppConfig, name: str, kind: str) -> Connection:
    if kind == "sqlite":
        return Connection(kind, None, ("database", "sqlite_dir"))
    if kind in _FALLBACK and name != "checkpointer":
        holder, field = _FALLBACK[kind]
        return Connection(kind, getattr(getattr(config, holder), field) or "", (holder, field))
    return Connection(kind, "", (name, "connection_string"))


def missing_connections(config: AppConfig) -> Iterator[tuple[tuple[str, str], str]]:
    """The path and message of every connection that is needed and not there."""
    database = config.database
    if database.backend == "postgres" and not database.postgres_url:
        yield ("database", "postgres_url"), "backend postgres needs postgres_url"
    if config.checkpointer is not None:
        yield from _missing(config, "checkpointer")
    for name in DERIVED_TYPE:
        yield from _missing(config, name)


def _missing(config: AppConfig, name: str) -> Iterator[tuple[tuple[str, str], str]]:
    kind, url, key = connection_of(config, name)
    if kind == "memory" or url or url is None or (key[0] == "database" and config.database.backend == "postgres"):
        return
    also = "" if key[0] == name else f", or {'.'.join(key)}"
    yield (name, "connection_string"), f"type {kind} needs connection_string{also}"
