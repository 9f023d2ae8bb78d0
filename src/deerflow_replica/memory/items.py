"""How documents are read from a store and written to it: onto a version where the store has them, else under a lock."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from langgraph.store.base import BaseStore, Item, PutOp

from ..errors import ReplicaError, StoreUnavailableError, VersionConflictError

T = TypeVar("T")
Namespace = tuple[str, ...]
Value = dict[str, Any]

_PAGE = 500
_LOCK_SECONDS = 10.0
_PROGRAMMING_ERRORS = (ValueError, TypeError, AttributeError, LookupError, NotImplementedError)


class VersionedItem(Protocol):
    @property
    def value(self) -> Value: ...
    @property
    def version(self) -> int: ...


class VersionedStore(Protocol):
    """A store that replaces a value only if it is still of a version (0: absent), else `VersionConflictError`.

    `_door` runs a coroutine on the store's own loop and waits for it, on the thread of another running loop too.
    """

    async def aget_versioned(self, namespace: Namespace, key: str, /) -> VersionedItem | None: ...
    async def aput(
        self, namespace: Namespace, key: str, value: Value, /, index: Any = ..., *, ttl: Any = ..., if_version: int
    ) -> int | None: ...
    async def abatch(self, ops: list[PutOp], /) -> list[Any]: ...
    async def asearch(self, namespace: Namespace, /, *, limit: int, offset: int) -> list[Item]: ...
    def _door(self, work: Coroutine[Any, Any, T], /) -> T: ...


class Found(NamedTuple):
    value: Value
    version: Hashable


class VersionedItems:
    """Whoever comes second finds another version and stores nothing."""

    finds_conflicts = True

    def __init__(self, store: VersionedStore) -> None:
        self._store = store

    def read(self, namespace: Namespace, key: str) -> Found | None:
        item = self._run(self._store.aget_versioned(namespace, key))
        return None if item is None else Found(item.value, item.version)

    def replace(self, item: PutOp, version: Hashable, others: list[PutOp]) -> Hashable | None:
        """Store the item instead of `version`, after the others: it is what others look for them by."""
        return self._run(self._replace(item, cast("int | None", version) or 0, others))

    async def _replace(self, item: PutOp, version: int, others: list[PutOp]) -> int | None:
        if others:
            await self._store.abatch(others)
        value = cast(Value, item.value)
        try:
            return await self._store.aput(item.namespace, item.key, value, item.index, ttl=None, if_version=version)
        except VersionConflictError:
            return None

    def keys(self, namespace: Namespace) -> list[str]:
        return _keys(lambda at: self._run(self._store.asearch(namespace, limit=_PAGE, offset=at)), namespace)

    def exclusive(self, where: Hashable) -> AbstractContextManager[object]:
        return nullcontext()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with _store_errors():
            return self._store._door(work)


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
        with _store_errors():
            self._store.batch([*others, item._replace(value=copy.deepcopy(item.value))])
        return True

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
