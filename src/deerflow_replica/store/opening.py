"""The store that a configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

    from .._drivers.databases import Databases
    from ..config import AppConfig
    from ..config.targets import Target
    from .base import SharedStore

_SWEEP_MINUTES = 5
_UNKNOWN_TO = {"sqlite": {"text_index"}, "mongo": {"index", "text_index"}}


@asynccontextmanager
async def open_store(config: AppConfig, *, databases: Databases | None = None) -> AsyncIterator[BaseStore]:
    """Open the store of section `store`, set it up, and close it at the end; `memory` is LangGraph's `InMemoryStore`.

    Unless `store.ttl` says otherwise, what has expired is not found any more, and is swept every 5 minutes. Raises
    `ConfigError`, `MissingExtraError` when the driver is not installed, `StoreUnavailableError` when the database is
    away. `databases` shares an SQLite file's connection with other parts of a replica.
    """
    from ..config.targets import target_of

    target = target_of(config, "store")
    options = _options(config, target.kind)
    if target.kind == "memory":
        yield _in_memory(options)
        return
    async with AsyncExitStack() as stack:
        with _placed(config, target):
            store = await stack.enter_async_context(_built(config, target, options, databases))
            await store.asetup()
        await store.astart_ttl_sweeper()
        yield store


@contextmanager
def _placed(config: AppConfig, target: Target) -> Iterator[None]:
    """A mistake in an argument is one in the key that it comes from."""
    from ..config.targets import problem_at

    keys = {"dsn": target.key, "url": target.key, "database": "store.mongo_database"}
    keys |= {key: f"store.{key}" for key in ("index.ann_index_config", "index.dims", "text_index.language")}
    try:
        yield
    except ConfigError as error:
        (problem,) = error.problems
        if problem.key not in keys:
            raise
        raise problem_at(config, keys[problem.key], problem.message) from None


@contextmanager
def _asked_for(config: AppConfig, key: str) -> Iterator[None]:
    """What a value is refused with, at the value's place."""
    from ..config.targets import problem_at

    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise problem_at(config, key, str(error).partition("\n")[0]) from error


def _built(config: AppConfig, target: Target, options: dict[str, Any], databases: Databases | None) -> SharedStore:
    if target.kind == "postgres":
        from .postgres import PostgresStore

        options |= {"schema": target.schema} if target.schema else {}
        return PostgresStore(target.url, pool_max_size=config.database.pool_size, **options)
    if target.kind == "sqlite":
        from .sqlite import SqliteStore

        shared_file = databases.sqlite(target.url) if databases and target.url else None
        return SqliteStore(target.url, **options, _database=shared_file)
    from .mongodb import MongoStore

    timeout_seconds = config.replica.connect_timeout_seconds
    return MongoStore(target.url, database=config.store.mongo_database, timeout_seconds=timeout_seconds, **options)


def _in_memory(options: Mapping[str, Any]) -> BaseStore:
    from langgraph.store.memory import InMemoryStore

    return InMemoryStore(index=options.get("index"))


def _options(config: AppConfig, kind: str) -> dict[str, Any]:
    from langgraph.store.base import ensure_embeddings

    from ..config.targets import problem_at
    from .embedding import Embedder, TextIndex
    from .inputs import micros

    ttl = {"omit_expired": True, "sweep_interval_minutes": _SWEEP_MINUTES, **(_plain(config.store.ttl) or {})}
    for name in ("default_ttl", "sweep_interval_minutes"):
        with _asked_for(config, f"store.ttl.{name}"):
            micros(ttl.get(name), name)
    index, text_index = _plain(config.store.index), _plain(config.store.text_index)
    for option, value in (("index", index), ("text_index", text_index)):
        if value and option in _UNKNOWN_TO.get(kind, ()):
            raise problem_at(config, f"store.{option}", f"a store of type {kind} has none")
    if index:
        with _asked_for(config, "store.index"):
            index["embed"] = ensure_embeddings(index.get("embed"))
            Embedder(index)
    if text_index:
        with _asked_for(config, "store.text_index"):
            TextIndex(text_index)
    return {"ttl": ttl, **{name: value for name, value in (("index", index), ("text_index", text_index)) if value}}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
