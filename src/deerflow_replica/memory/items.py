"""How documents are read from a store and written to it: onto a version where the store has them, else under a lock."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol, cast

from langgraph.store.base import BaseStore, PutOp

from .._sync import Runner
from ..errors import ReplicaError, StoreUnavailableError, VersionConflictError

Namespace = tuple[str, ...]
Value = dict[str, Any]

_PAGE = 500
_LOCK_SECONDS = 10.0
_PROGRAMMING_ERRORS = (ValueError, TypeError, AttributeError, LookupError, NotImplementedError)


class VersionedStore(Protocol):
    """A store that replaces a value only if it is still of a version (0: absent), else `VersionConflictError`.

    It may offer `runner`, whose `call` runs one of the store's coroutines on the store's own loop and waits for it:
    the door for sync callers on the thread of another loop, where `get_versioned` and `put` themselves may refuse.
    """

    def get_versioned(self, namespace: Namespace, key: str, /) -> Any: ...
    def put(
        self, namespace: Namespace, key: str, value: Value, /, index: Any = ..., *, ttl: Any = ..., if_version: int
    ) -> int | None: ...


class Found(NamedTuple):
    value: Value
    version: Hashable


class VersionedItems:
    """Whoever comes second finds another version and stores nothing."""

    finds_conflicts = True

    def __init__(self, store: VersionedStore) -> None:
        self._store = store

    def read(self, namespace: Namespace, key: str) -> Found | None:
        item = self._call("get_versioned", namespace, key)
        return None if item is None else Found(item.value, item.version)

    def replace(self, item: PutOp, version: Hashable, others: list[PutOp]) -> Hashable | None:
        """Store the item instead of `version`, after the others: whoever sees it may need them."""
        if others:
            self.write(others)
        found = 0 if version is None else version
        try:
            written = self._call("put", item.namespace, item.key, item.value, item.index, ttl=None, if_version=found)
            return cast(int, written)
        except VersionConflictError:
            return None

    def write(self, items: list[PutOp]) -> None:
        self._call("batch", items)

    def keys(self, namespace: Namespace) -> list[str]:
        return _keys(lambda at: self._call("search", namespace, limit=_PAGE, offset=at), namespace)

    def exclusive(self, where: Hashable) -> AbstractContextManager[object]:
        return nullcontext()

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        with _store_errors():
            runner: Runner | None = getattr(self._store, "runner", None)
            if runner is None:
                return getattr(self._store, name)(*args, **options)
            return runner.call(getattr(self._store, f"a{name}")(*args, **options))


class PlainItems:
    """Whoever comes second waits, in this process only."""

    finds_conflicts = False

    # LangGraph's stores take no attribute, so the locks cannot be theirs: two storages on one store must share them.
    _LOCKS = tuple(threading.Lock() for _ in range(64))

    def __init__(self, store: BaseStore) -> None:
        self._store = store

    def read(self, namespace: Namespace, key: str) -> Found | None:
        with _store_errors():
            item = self._store.get(namespace, key)
        return None if item is None else Found(copy.deepcopy(item.value), item.updated_at)

    def replace(self, item: PutOp, version: Hashable, others: list[PutOp]) -> Hashable | None:
        """Under the lock of `exclusive`, so it is still what was read."""
        self.write([*others, item])
        return True

    def write(self, items: list[PutOp]) -> None:
        with _store_errors():
            self._store.batch([item._replace(value=copy.deepcopy(item.value)) for item in items])

    def keys(self, namespace: Namespace) -> list[str]:
        with _store_errors():
            return _keys(lambda at: self._store.search(namespace, limit=_PAGE, offset=at), namespace)

    @contextmanager
    def exclusive(self, where: Hashable) -> Iterator[None]:
        lock = self._LOCKS[hash((id(self._store), where)) % len(self._LOCKS)]
        if not lock.acquire(timeout=_LOCK_SECONDS):
            raise StoreUnavailableError("the memory is held by another thread")
        try:
            yield
        finally:
            lock.release()


def items_of(store: BaseStore) -> VersionedItems | PlainItems:
    has_versions = callable(getattr(store, "get_versioned", None))
    if has_versions and "if_version" in inspect.signature(store.put).parameters:
        return VersionedItems(cast(VersionedStore, store))
    return PlainItems(store)


def _keys(page: Callable[[int], list[Any]], namespace: Namespace) -> list[str]:
    """The keys of the very namespace; a search finds those below it too."""
    keys: list[str] = []
    offset = 0
    while found := page(offset):
        keys += [item.key for item in found if tuple(item.namespace) == namespace]
        offset += len(found)
    return keys


@contextmanager
def _store_errors() -> Iterator[None]:
    """Of what a store of any make may raise, all but our own errors and those of programs means: not now."""
    try:
        yield
    except (ReplicaError, *_PROGRAMMING_ERRORS):
        raise
    except Exception as error:
        raise StoreUnavailableError(f"the store of memory is not available: {error}") from error
