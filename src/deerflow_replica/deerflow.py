"""What DeerFlow constructs itself: `storage_class: deerflow_replica.deerflow.SharedMemoryStorage` in its `memory`.

Importing this module imports DeerFlow's own storage interface, where DeerFlow is installed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from langgraph.store.base import BaseStore

from ._sync import Runner
from .errors import ConfigError, MemoryCorruptError, VersionConflictError
from .memory.base import Scope
from .memory.checks import Document
from .memory.documents import Change, Stored, Summaries, Unread
from .memory.store import StoreMemoryStorage

if TYPE_CHECKING:
    from .store.base import SharedStore

E = TypeVar("E", bound=Exception)

logger = logging.getLogger(__name__)

URL = "DEERFLOW_REPLICA_MEMORY_URL"

_STORES = {
    "postgresql://": ("postgres", "PostgresStore"),
    "postgres://": ("postgres", "PostgresStore"),
    "mongodb://": ("mongodb", "MongoStore"),
    "mongodb+srv://": ("mongodb", "MongoStore"),
    "sqlite:///": ("sqlite", "SqliteStore"),
}


class _DeerFlow(NamedTuple):
    """The generation of DeerFlow that is installed: its storage module, and who shares summaries there."""

    module: ModuleType | None
    summaries: Summaries

    def also(self, ours: type[E], name: str, theirs: str) -> type[E]:
        """Our error class, of DeerFlow's kind too where it has that."""
        base = getattr(self.module, theirs, None)
        if base is None:
            return ours
        return cast("type[E]", type(name, (ours, base), {"__module__": __name__, "__doc__": ours.__doc__}))


def _installed() -> _DeerFlow:
    generations: tuple[tuple[str, Summaries], ...] = (
        ("deerflow.agents.memory.backends.deermem.deermem.core.storage", "user"),
        ("deerflow.agents.memory.storage", "scope"),
    )
    for name, summaries in generations:
        try:
            return _DeerFlow(import_module(name), summaries)
        except ImportError:
            continue
    return _DeerFlow(None, "scope")


_DEERFLOW = _installed()

ManifestConflictError = _DEERFLOW.also(VersionConflictError, "ManifestConflictError", "MemoryManifestRevisionConflict")
FactConflictError = _DEERFLOW.also(VersionConflictError, "FactConflictError", "MemoryFactRevisionConflict")
CorruptionError = _DEERFLOW.also(MemoryCorruptError, "CorruptionError", "MemoryStorageCorruption")


class _Store:
    """The store of the URL, opened and set up at the first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: SharedStore | None = None
        self._is_set_up = False

    @property
    def runner(self) -> Runner:
        return self._ready().runner

    def get_versioned(self, *args: Any) -> Any:
        return self.runner.call(self.aget_versioned(*args))

    def put(self, *args: Any, ttl: Any, if_version: int) -> Any:
        return self.runner.call(self.aput(*args, ttl=ttl, if_version=if_version))

    def aget_versioned(self, *args: Any) -> Any:
        return self._ready().aget_versioned(*args)

    def aput(self, *args: Any, ttl: Any, if_version: int) -> Any:
        return self._ready().aput(*args, ttl=ttl, if_version=if_version)

    def abatch(self, *args: Any) -> Any:
        return self._ready().abatch(*args)

    def asearch(self, *args: Any, **options: Any) -> Any:
        return self._ready().asearch(*args, **options)

    def close(self) -> None:
        """On a thread of its own: the caller's may have a running loop, which the store would refuse."""
        with self._lock, ThreadPoolExecutor(1) as thread:
            if self._opened is not None:
                thread.submit(self._opened.close).result()

    def _ready(self) -> SharedStore:
        with self._lock:
            store = self._opened
            if store is None:
                url = _url()
                store = self._opened = _constructor(url)(url)
            if not self._is_set_up:
                store.runner.call(store.asetup())
                self._is_set_up = True
            return store


class _SharedMemoryStorage(StoreMemoryStorage):
    """DeerFlow's memory in the database that `DEERFLOW_REPLICA_MEMORY_URL` names: `postgresql://`, `mongodb://` or
    `sqlite:///`.

    DeerFlow constructs it with its memory configuration, of which nothing is read. Connected, and set up, at the first
    use. Without a usable URL: `ConfigError`, and a line in the log, because a DeerFlow that falls back to files says
    nothing. Conflicts and corruption are DeerFlow's own errors too. Who shares summaries follows DeerFlow's generation.
    """

    own_agents = frozenset({getattr(_DEERFLOW.module, "DEFAULT_AGENT_BUCKET", "")} - {""})

    def __init__(self, config: object) -> None:
        try:
            _constructor(_url())
        except (ConfigError, ImportError) as error:
            logger.error("memory is not shared between replicas: %s", error)  # noqa: TRY400  # the text says it all
            raise
        self._store = _Store()
        super().__init__(cast(BaseStore, self._store), summaries=_DEERFLOW.summaries)

    def close(self) -> None:
        super().close()
        self._store.close()

    def _read(self, place: Scope, known: Hashable | None) -> Stored | Unread:
        with _deerflow_errors():
            return super()._read(place, known)

    def _update(self, place: Scope, change: Change) -> Document:
        with _deerflow_errors():
            return super()._update(place, change)


if TYPE_CHECKING:
    SharedMemoryStorage = _SharedMemoryStorage
else:
    SharedMemoryStorage = type(_SharedMemoryStorage)(
        "SharedMemoryStorage",
        (_SharedMemoryStorage, *([_DEERFLOW.module.MemoryStorage] if _DEERFLOW.module else [])),
        {"__module__": __name__, "__doc__": _SharedMemoryStorage.__doc__},
    )


@contextmanager
def _deerflow_errors() -> Iterator[None]:
    try:
        yield
    except VersionConflictError as error:
        kind = getattr(error, "kind", "manifest")
        conflict = FactConflictError if kind == "fact" else ManifestConflictError
        raise conflict(str(error), current=error.current, kind=kind) from error
    except MemoryCorruptError as error:
        if isinstance(error, CorruptionError):
            raise
        raise CorruptionError(str(error)) from error


def _url() -> str:
    url = os.environ.get(URL, "")
    if not url:
        raise ConfigError(f"{URL} is not set: it names the database of the memory")
    return url


def _constructor(url: str) -> Callable[[str], SharedStore]:
    beginning = next((beginning for beginning in _STORES if url.startswith(beginning)), None)
    if beginning is None:
        raise ConfigError(f"{URL} must begin with postgresql://, mongodb:// or sqlite:///")
    module, name = _STORES[beginning]
    store_class = getattr(import_module(f".store.{module}", __package__), name)
    return cast("Callable[[str], SharedStore]", store_class.from_conn_string)
