"""How documents are read from a store and written to it: onto a version where it has them, and under a lock."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast

from langgraph.store.base import BaseStore, PutOp

from .._sync import Runner
from ..errors import ReplicaError, StoreUnavailableError, VersionConflictError

Namespace = tuple[str, ...]
Value = dict[str, Any]

_PAGE = 500
_LOCK_SECONDS = 10.0
_LOCK_SECONDS_ON_A_LOOP = 1.0  # whoever holds it may need that very loop
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


class Items:
    """The items of one store, for the threads of this process one at a time."""

    finds_conflicts: bool

    # LangGraph's stores take no attribute, so the locks cannot be theirs: two storages on one store must share them.
    _LOCKS = tuple(threading.Lock() for _ in range(64))

    def __init__(self, store: Any) -> None:
        self._store = store

    @contextmanager
    def exclusive(self, where: Hashable) -> Iterator[None]:
        lock = self._LOCKS[hash((id(self._store), where)) % len(self._LOCKS)]
        is_held = lock.acquire(timeout=_LOCK_SECONDS_ON_A_LOOP if _is_on_a_loop() else _LOCK_SECONDS)
        if not (is_held or self.finds_conflicts):
            raise StoreUnavailableError("the memory is held by another thread")
        try:
            yield
        finally:
            if is_held:
                lock.release()

    def keys(self, namespace: Namespace) -> list[str]:
        """The keys of the very namespace; a search finds those below it too."""
        keys: list[str] = []
        offset = 0
        while found := self._call("search", namespace, limit=_PAGE, offset=offset):
            keys += [item.key for item in found if tuple(item.namespace) == namespace]
            offset += len(found)
        return keys

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        with _store_errors():
            return getattr(self._store, name)(*args, **options)


class VersionedItems(Items):
    """Whoever comes second, in another process too, finds another version and stores nothing."""

    finds_conflicts = True

    def __init__(self, store: VersionedStore) -> None:
        super().__init__(store)

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

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        with _store_errors():
            runner: Runner | None = getattr(self._store, "runner", None)
            if runner is not None:
                return runner.call(getattr(self._store, f"a{name}")(*args, **options))
        return super()._call(name, *args, **options)


class PlainItems(Items):
    """Another process is not noticed."""

    finds_conflicts = False

    def read(self, namespace: Namespace, key: str) -> Found | None:
        item = self._call("get", namespace, key)
        return None if item is None else Found(copy.deepcopy(item.value), item.updated_at)

    def replace(self, item: PutOp, version: Hashable, others: list[PutOp]) -> Hashable | None:
        """Under the lock of `exclusive`, so it is still what was read."""
        self.write([*others, item])
        return True

    def write(self, items: list[PutOp]) -> None:
        """Private copies: LangGraph's own in-process store keeps what it is given."""
        self._call("batch", [item._replace(value=copy.deepcopy(item.value)) for item in items])


def items_of(store: BaseStore) -> VersionedItems | PlainItems:
    has_versions = callable(getattr(store, "get_versioned", None))
    if has_versions and "if_version" in inspect.signature(store.put).parameters:
        return VersionedItems(cast(VersionedStore, store))
    return PlainItems(store)


@contextmanager
def _store_errors() -> Iterator[None]:
    """Of what a store of any make may raise, all but our own errors and those of programs means: not now."""
    try:
        yield
    except (ReplicaError, *_PROGRAMMING_ERRORS):
        raise
    except Exception as error:
        raise StoreUnavailableError(f"the store of memory is not available: {error}") from error


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
