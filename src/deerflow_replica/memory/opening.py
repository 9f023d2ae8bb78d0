"""The memory storage that a configuration names."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from .base import MemoryStorage
from .documents import DocumentStorage

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

    from ..config import AppConfig

_CLASS = "memory.storage_class"
_CALLS = ("load", "reload", "save")


@asynccontextmanager
async def open_memory_storage(config: AppConfig, *, store: BaseStore | None = None) -> AsyncIterator[MemoryStorage]:
    """`memory.storage_class`, called with `config.memory` only, else what `memory.storage` names; closed at the end.

    "store" is the given one, which is left open. `ConfigError` names the key that cannot be served.
    """
    storage = _of_class(config) if config.memory.storage_class else _of_kind(config, store)
    try:
        yield storage
    finally:
        close = getattr(storage, "close", None)
        if getattr(type(storage), "close", None) is DocumentStorage.close:
            storage.close()  # it does not wait: no thread for it
        elif callable(close):
            await asyncio.to_thread(close)


def _of_kind(config: AppConfig, store: BaseStore | None) -> MemoryStorage:
    from ..config.targets import memory_folder, problem_at

    if config.memory.storage == "file":
        from .file import FileMemoryStorage

        return FileMemoryStorage(memory_folder(config))
    if store is None:
        raise problem_at(config, "memory.storage", "a store is needed: pass store=, or open a replica")
    from .store import StoreMemoryStorage

    return StoreMemoryStorage(store)


def _of_class(config: AppConfig) -> MemoryStorage:
    """DeerFlow's own storages are of no class of ours, so what counts is what they can be asked."""
    from ..config.targets import problem_at

    path = cast(str, config.memory.storage_class)
    try:
        storage = _imported(path)(config.memory)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise problem_at(config, _CLASS, f"{path} cannot be used: {error}") from error
    missing = [name for name in _CALLS if not callable(getattr(storage, name, None))]
    if missing:
        raise problem_at(config, _CLASS, f"{path} has no {', '.join(missing)}")
    return cast(MemoryStorage, storage)


def _imported(path: str) -> type:
    separator = ":" if ":" in path else "."
    module, _, name = path.rpartition(separator)
    if not module or not name:
        raise ValueError("not of the form module:Class or module.Class")
    return cast(type, getattr(importlib.import_module(module), name))
