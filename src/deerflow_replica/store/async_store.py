"""The async methods of every store: each checks its input, makes a `Call` of it and waits for the answer."""

from __future__ import annotations

import asyncio
import copy
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias, TypeVar

from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    NamespacePath,
    NotProvided,
    Op,
    PutOp,
    Result,
    SearchItem,
    TTLConfig,
)

from .._sync import Runner
from . import answers, inputs, labels
from .backend import Backend
from .documents import MAX_DOCUMENT_BYTES
from .embedding import Embedder, TextIndex, TextIndexConfig, VectorIndexConfig
from .engine import Engine, Engines
from .filters import parse
from .preparing import Batch, Preparation
from .sweeping import STEP, Sweeper
from .units import Call
from .updating import Change, UpdateFunction, updated
from .values import Conflict, Count, Get, OnConflict, Restored, Row, TakenOver, VersionedItem, Written

T = TypeVar("T")
Index: TypeAlias = Literal[False] | list[str] | None
Ttl: TypeAlias = float | NotProvided | None


class AsyncStore(BaseStore):
    """The async half of `SharedStore`."""

    supports_ttl = True
    ttl_config: TTLConfig  # pyright: ignore[reportIncompatibleVariableOverride]  # it is never None here
    """Read at every call; always a dict."""

    _max_document_bytes = MAX_DOCUMENT_BYTES

    def __init__(
        self,
        name: str,
        *,
        index: VectorIndexConfig | None = None,
        text_index: TextIndexConfig | None = None,
        ttl: TTLConfig | None = None,
        is_borrowed: bool = False,
    ) -> None:
        """`name` is for threads and logs; `is_borrowed`: the backend lives on one loop, which is the caller's."""
        self.ttl_config = (  # pyright: ignore[reportIncompatibleVariableOverride]  # as above
            TTLConfig(**ttl) if ttl else TTLConfig()
        )
        inputs.micros(self.ttl_config.get("default_ttl"))
        self._embedder = Embedder(index) if index else None
        self._text_index = TextIndex(text_index) if text_index else None
        self._preparation = Preparation(self._embedder, self._text_index, self._max_document_bytes)
        self._engines = Engines(self._new_backend, name, is_borrowed=is_borrowed)
        self._sweeper = Sweeper(self._sweep)
        self._labels: tuple[str, ...] = ()
        self._root: AsyncStore = self

    @abstractmethod
    def _new_backend(self) -> Backend:
        """A backend for one event loop, not open yet. Called for each loop that needs one: at most two at a time."""

    @property
    def runner(self) -> Runner:
        """Runs this store's coroutines for a sync caller, even on the thread of a running loop, which it then blocks:
        `store.runner.call(store.aget(...))`.
        """
        self._engines.check_open()
        return self._engines.runner

    async def __aenter__(self) -> Self:
        await self._here(nothing)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let what is under way finish, for at most 5 s, and close what this store opened. Idempotent.

        Every later call raises `StoreUnavailableError`. Closing a view closes nothing.
        """
        if self._root is self:
            await self._sweeper.stop()
            await self._engines.close()

    async def asetup(self, *, create_schema: bool = True) -> None:
        """Create or migrate what the store needs: the only place with DDL. Any number of replicas may do it together.

        Raises `ConfigError` for a database that a newer version of this package wrote, or one whose vectors have other
        dimensions; then nothing is touched.
        """
        await self._here(lambda engine: engine.backend.set_up(create_schema=create_schema))

    def scoped(self, *scope: str) -> Self:
        """A view whose namespaces all begin with these labels, which it neither shows nor lets anyone leave.

        `store.scoped("users", encode_label(user_id))` is one user's store. Views nest.
        """
        view = copy.copy(self)
        view._labels = (*self._labels, *labels.checked(scope))
        labels.joined(view._labels)
        return view

    async def aget(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> Item | None:
        return answers.item(await self._row(namespace, key, refresh_ttl), self._labels)

    async def aget_versioned(
        self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None
    ) -> VersionedItem | None:
        """`aget` with the item's version, for `aput(..., if_version=)`."""
        return answers.versioned(await self._row(namespace, key, refresh_ttl), self._labels)

    async def asearch(
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
        """Items at or below a namespace, newest first (then by namespace and key), or the best matches of `query`."""
        refresh = self._refreshes(refresh_ttl)
        search = inputs.search(self._labels, namespace_prefix, filter, limit, offset, query, refresh=refresh)
        [rows] = await self._submit(self._preparation.reading(search))
        return answers.found(rows, self._labels)

    async def alist_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        conditions = [MatchCondition("prefix", prefix or ()), MatchCondition("suffix", suffix or ())]
        wanted = inputs.list_namespaces(self._labels, conditions, max_depth, limit, offset)
        [found] = await self._submit(Batch([wanted]))
        return answers.namespaces(found, self._labels)

    async def acount(self, namespace_prefix: tuple[str, ...] = (), *, filter: Mapping[str, Any] | None = None) -> int:
        """How many items a search without a limit would find."""
        count = Count(inputs.prefix(self._labels, namespace_prefix), parse(filter))
        [found] = await self._submit(Batch([count]))
        return int(found)

    async def aput(  # type: ignore[override]  # returns the new version when one was expected
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Index = None,
        *,
        ttl: Ttl = NOT_PROVIDED,
        if_version: int | None = None,
    ) -> int | None:
        """Store an item; returns None unless `if_version` is given.

        `if_version`: 0 only creates, n only replaces version n; the new version is returned. Not met:
        `VersionConflictError` with `.namespace .key .expected .current` (0: absent), and nothing is written. `ttl` is
        in minutes; None: never expires; not given: `default_ttl`.
        """
        expected = None if if_version is None else inputs.version(if_version)
        place = inputs.place(self._labels, namespace, str(key), put=True)
        batch = self._preparation.put(place, _mapping(value), index, self._ttl(ttl), expected)
        if expected is None:
            await self._submit(batch)
            return None
        return (await self._written(batch)).version

    async def adelete(self, namespace: tuple[str, ...], key: str, *, if_version: int | None = None) -> None:
        """Delete an item, if it is there; with `if_version` only that version, else `VersionConflictError`."""
        expected = None if if_version is None else inputs.version(if_version)
        place = inputs.place(self._labels, namespace, str(key))
        batch = self._preparation.put(place, None, if_version=expected)
        await (self._submit(batch) if expected is None else self._written(batch))

    async def aupdate(
        self,
        namespace: tuple[str, ...],
        key: str,
        fn: UpdateFunction,
        *,
        index: Index = None,
        ttl: Ttl = NOT_PROVIDED,
        max_attempts: int = 64,
    ) -> VersionedItem | None:
        """Read, change, write, with nothing lost in between: the item as stored, or None when there is none now.

        `fn` gets a private copy of the value (None: no item) and returns the new one, or None to delete; plain or
        async. After a conflict it runs again, at most `max_attempts` times, then `VersionConflictError`. What it
        raises comes out, and nothing is written. An equal value writes nothing. Without `ttl`, an item keeps its own.
        """
        return await self._updated(_awaited, namespace, key, fn, index, ttl, max_attempts)

    async def adelete_namespace(self, namespace_prefix: tuple[str, ...]) -> int:
        """Delete everything at and below a namespace: how many items. `()` raises `ValueError`."""
        if not labels.checked(namespace_prefix):
            raise ValueError("delete_namespace needs a label: it does not empty the store")
        prefix, live = inputs.prefix(self._labels, namespace_prefix), self._is_live
        return int(await self._submit(Batch(), lambda backend: backend.delete_namespace(prefix, live=live)))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Reads see the state before the batch; then the last put of each item is applied, all of them or none.

        One invalid operation, and nothing is done.
        """
        given = list(ops)
        if not given:
            return []
        found = iter(await self._submit(self._preparation.batch(given, self._labels)))
        return [None if isinstance(op, PutOp) else self._result(op, next(found)) for op in given]

    async def asweep_ttl(self) -> int:
        """Delete what has expired, in steps of 1,000: how many items; 0 while another replica does."""
        return await self._root._sweeper.sweep()

    async def astart_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """Sweep in the background, by default every `ttl_config["sweep_interval_minutes"]`, else every 5 minutes."""
        minutes = sweep_interval_minutes or self.ttl_config.get("sweep_interval_minutes") or 5
        interval = inputs.micros(minutes, "sweep_interval_minutes")
        self._root._sweeper.start((interval or 0) / 1_000_000)

    async def astop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Whether it has stopped within `timeout` seconds (None: however long it takes)."""
        return await self._root._sweeper.stop(timeout)

    @property
    def _is_live(self) -> bool:
        return bool(self.ttl_config.get("omit_expired"))

    def _refreshes(self, refresh_ttl: bool | None) -> bool:
        return bool(self.ttl_config.get("refresh_on_read", True) if refresh_ttl is None else refresh_ttl)

    def _ttl(self, ttl: Ttl) -> int | None:
        return inputs.micros(self.ttl_config.get("default_ttl") if isinstance(ttl, NotProvided) else ttl)

    async def _row(self, namespace: tuple[str, ...], key: str, refresh_ttl: bool | None) -> Row | None:
        get = Get(inputs.place(self._labels, namespace, str(key)), self._refreshes(refresh_ttl))
        [row] = await self._submit(Batch([get]))
        return row  # type: ignore[no-any-return]  # a backend answers a Get so

    async def _written(self, batch: Batch) -> Written:
        outcome: Written | Conflict = await self._submit(batch)
        return answers.met(outcome, batch.writes[0], self._labels)

    async def _updated(
        self,
        do: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
        namespace: tuple[str, ...],
        key: str,
        fn: UpdateFunction,
        index: Index,
        ttl: Ttl,
        max_attempts: int,
    ) -> VersionedItem | None:
        place = inputs.place(self._labels, namespace, str(key), put=True)
        micros, keeps_ttl = self._ttl(ttl), isinstance(ttl, NotProvided)

        async def write(value: Change, version: int) -> VersionedItem | None:
            batch = self._preparation.put(place, value, index, micros, version, keeps_ttl=keeps_ttl)
            return answers.stored(batch.writes[0], await self._written(batch), self._labels)

        attempts = inputs.whole_number("max_attempts", max_attempts, 1)
        outcome = await updated(do, lambda: self._row(namespace, key, refresh_ttl=False), write, fn, attempts)
        return answers.versioned(outcome, self._labels) if isinstance(outcome, Row) else outcome

    def _result(self, op: Op, answer: Any) -> Result:
        if isinstance(op, GetOp):
            return answers.item(answer, self._labels)
        if isinstance(op, ListNamespacesOp):
            return answers.namespaces(answer, self._labels)
        return answers.found(answer, self._labels)

    async def _submit(self, batch: Batch, alone: Callable[[Backend], Awaitable[Any]] | None = None) -> Any:
        """The answers of the batch's reads, or what `alone` or a conditional write returned."""
        engine = self._engines.here()
        if engine is None:
            return await self._engines.runner.acall(self._submit(batch, alone))
        live = self._is_live
        if batch.is_conditional:
            alone = _conditional(lambda: call.writes[0], live)
        answer: asyncio.Future[Any] = engine.loop.create_future()
        is_ready = not batch.needs_embedding
        call = Call(answer, reads=batch.reads, writes=batch.writes, live=live, alone=alone, is_ready=is_ready)
        engine.scheduler.submit(call)
        if not is_ready:
            await self._embed(call, batch, engine)
        return await answer

    async def _embed(self, call: Call, batch: Batch, engine: Engine) -> None:
        """The call has its place in the queue meanwhile; when this fails, it gives it up."""
        try:
            call.reads, call.writes = await self._preparation.embedded(batch)
        except BaseException:
            call.answer.cancel()
            raise
        finally:
            call.is_ready = True
            engine.scheduler.poke()

    async def _here(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        """Do something on this loop's engine, past its scheduler."""
        engine = self._engines.here()
        if engine is None:
            return await self._engines.runner.acall(self._here(work))
        await engine.open()
        return await work(engine)

    async def _take_over(self, items: Sequence[TakenOver], on_conflict: OnConflict | None) -> int:
        """Store items of another store with their stamps, and vectors of the default fields: how many.

        None only checks them.
        """
        adopted = [self._adopted(item) for item in items]
        if on_conflict is None:
            return 0
        joined = Batch((), [one.writes[0] for one in adopted], [one.texts[0] for one in adopted])
        writes = (await self._preparation.embedded(joined))[1] if any(joined.texts) else joined.writes
        restored = sorted(
            Restored(write, item.created_at, item.updated_at, item.expires_at)
            for write, item in zip(writes, items, strict=True)
        )
        return await self._here(lambda engine: engine.backend.restore(restored, on_conflict=on_conflict))

    def _adopted(self, item: TakenOver) -> Batch:
        try:
            place = inputs.place(self._labels, item.namespace, item.key, put=True)
            return self._preparation.put(place, item.value, ttl=item.ttl)
        except ValueError as error:
            raise ValueError(f"{item.namespace} {item.key!r} cannot be stored: {error}") from error

    async def _sweep(self) -> int | None:
        return await self._here(lambda engine: engine.backend.sweep(STEP))


def _conditional(write: Callable[[], Any], live: bool) -> Callable[[Backend], Awaitable[Any]]:
    return lambda backend: backend.write_if(write(), live=live)


def _mapping(value: Any) -> Any:
    if value is None:
        raise ValueError("a value must be a mapping; delete() deletes")
    return value


async def nothing(engine: Engine) -> None:
    """Opening was all."""


async def _awaited(work: Coroutine[Any, Any, T]) -> T:
    return await work
