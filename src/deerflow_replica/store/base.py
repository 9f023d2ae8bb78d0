"""What every store here has in common: LangGraph's `BaseStore`, versions, views, and one way from a call to a backend.

A backend fills in the hooks of `Backend`. The sync methods run the coroutines of the async ones on the store's private
loop thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Self, TypeVar

from langgraph.store.base import NOT_PROVIDED, Item, NamespacePath, Op, Result, SearchItem

from .._sync import InlineRunner
from .async_store import AsyncStore, Index, Ttl, nothing
from .updating import UpdateFunction
from .values import VersionedItem

T = TypeVar("T")


class SharedStore(AsyncStore):
    """A `BaseStore` that many replicas share without losing a write.

    Async methods run on the caller's loop; sync ones from any thread whose loop is not running (else
    `asyncio.InvalidStateError`). Bad input raises `ValueError` (a bad namespace LangGraph's `InvalidNamespaceError`)
    before anything is sent. A database that is away raises `StoreUnavailableError`, one that was not set up
    `ConfigError`. Use it as a context manager, sync or async, or call `close` or `aclose` at the end.
    """

    def __enter__(self) -> Self:
        self._wait(self._here(nothing))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        if self._root is self:
            _check_no_loop()
            self._sweeper.stop_sync(None)
            self._engines.close_sync()

    def setup(self, *, create_schema: bool = True) -> None:
        self._wait(self.asetup(create_schema=create_schema))

    def get(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        return self._wait(self.aget(namespace, key, refresh_ttl=refresh_ttl))

    def get_versioned(
        self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None
    ) -> VersionedItem | None:
        return self._wait(self.aget_versioned(namespace, key, refresh_ttl=refresh_ttl))

    def search(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        found = self.asearch(
            namespace_prefix, query=query, filter=filter, limit=limit, offset=offset, refresh_ttl=refresh_ttl
        )
        return self._wait(found)

    def list_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        found = self.alist_namespaces(prefix=prefix, suffix=suffix, max_depth=max_depth, limit=limit, offset=offset)
        return self._wait(found)

    def count(self, namespace_prefix: tuple[str, ...] = (), *, filter: Mapping[str, Any] | None = None) -> int:
        return self._wait(self.acount(namespace_prefix, filter=filter))

    def put(  # type: ignore[override]  # returns the new version when one was expected
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Index = None,
        *,
        ttl: Ttl = NOT_PROVIDED,
        if_version: int | None = None,
    ) -> int | None:
        return self._wait(self.aput(namespace, key, value, index, ttl=ttl, if_version=if_version))

    def delete(self, namespace: tuple[str, ...], key: str, *, if_version: int | None = None) -> None:
        self._wait(self.adelete(namespace, key, if_version=if_version))

    def update(
        self,
        namespace: tuple[str, ...],
        key: str,
        fn: UpdateFunction,
        *,
        index: Index = None,
        ttl: Ttl = NOT_PROVIDED,
        max_attempts: int = 64,
    ) -> VersionedItem | None:
        """`aupdate` for a sync caller: a plain `fn` runs on the caller's thread."""
        _check_no_loop()
        return InlineRunner().call(self._updated(self._waited, namespace, key, fn, index, ttl, max_attempts))

    def delete_namespace(self, namespace_prefix: tuple[str, ...]) -> int:
        return self._wait(self.adelete_namespace(namespace_prefix))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        return self._wait(self.abatch(ops))

    def sweep_ttl(self) -> int:
        return self._wait(self.asweep_ttl())

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        self._wait(self.astart_ttl_sweeper(sweep_interval_minutes))

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        _check_no_loop()
        return self._root._sweeper.stop_sync(timeout)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            _check_no_loop()
            return self.runner.call(work)
        finally:
            work.close()  # when it was never begun; otherwise this does nothing

    async def _waited(self, work: Coroutine[Any, Any, T]) -> T:
        return self._wait(work)


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise asyncio.InvalidStateError("a sync call would block the running loop: await the method with an `a` in front")
