"""The thread map over the thread metadata that DeerFlow keeps itself."""

from __future__ import annotations

import asyncio
import builtins
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol, Self, TypeVar
from uuid import UUID

from .._sync import BorrowedLoop
from ..errors import StoreUnavailableError
from . import rules
from .base import ThreadMap
from .clock import microseconds
from .filters import matches
from .paging import Filters, Query, start
from .rules import Inserted, NewThread, Row, Rule
from .thread_meta_rows import changed_metadata, row_of
from .validation import one_of
from .values import ANY_USER, AnyUser, Claim, ThreadRecord

T = TypeVar("T")
Record = dict[str, Any]

_STRETCH = 500  # records asked for at once where a filter leaves some out


class ThreadMetaStore(Protocol):
    """The nine methods of DeerFlow's thread metadata stores. A `user_id` of None is no owner filter."""

    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str | None = None,
        user_id: str | None,
        display_name: str | None = None,
        metadata: Record | None = None,
    ) -> Record: ...

    async def get(self, thread_id: str, *, user_id: str | None) -> Record | None: ...

    async def search(
        self,
        *,
        metadata: Record | None = None,
        status: str | None = None,
        limit: int = 100,
        offset: int = 0,
        user_id: str | None,
    ) -> list[Record]: ...

    async def update_display_name(self, thread_id: str, display_name: Any, *, user_id: str | None) -> None: ...

    async def update_status(self, thread_id: str, status: str, *, user_id: str | None) -> None: ...

    async def update_metadata(
        self, thread_id: str, metadata: Record, *, touch: bool = True, user_id: str | None
    ) -> None: ...

    async def update_owner(self, thread_id: str, owner_user_id: str, *, user_id: str | None) -> None: ...

    async def check_access(self, thread_id: str, user_id: str, *, require_existing: bool = False) -> bool: ...

    async def delete(self, thread_id: str, *, user_id: str | None) -> None: ...


class ThreadMetaThreadMap(ThreadMap):
    """A `ThreadMap` over a thread metadata store of DeerFlow's, used on the loop that the store belongs to.

    What DeerFlow's store cannot do is different here:

    - A claim reads, creates, and reads again; calls for one thread take turns in this process, but in a store that
      overwrites on a second create, as DeerFlow's over LangGraph's does, processes that create at once take a thread
      from each other.
    - An update is one call for each kind of field, not all or none; a version is `updated_at` in microseconds, compared
      before it is written. A new display name or status touches the thread always. `assistant_id` cannot be changed.
      No key is removed from metadata: `remove_metadata` and `replace_metadata` store null.
    - `transfer` is read, written, and read, and touches the thread.
    - Lists are in DeerFlow's order, newest first but pinned ones before, with an offset inside the cursor: a walk
      beside writers may skip or repeat. Any other order, and `ids`, are a `ValueError`. Pages with a metadata filter,
      and `count`, read the user's threads.
    - There is one tenant, no tombstone and no expiry: a `ttl_seconds` is a `ValueError`, `sweep` returns 0.

    A row without owner is hidden from users, but no claim takes it (`unowned="deny"`), or may be used by all of them:
    claims of it are granted, `get` shows it (`unowned="shared"`). Users change, list and delete their own only.
    """

    def __init__(self, thread_meta_store: ThreadMetaStore, *, unowned: Literal["deny", "shared"] = "deny") -> None:
        super().__init__(tombstone_seconds=0)
        self._store = thread_meta_store
        self._shares = one_of("unowned", unowned, ("deny", "shared")) == "shared"
        self._turns = _turns_of(thread_meta_store)
        self._loop = BorrowedLoop()
        self.runner = self._loop

    def for_tenant(self, tenant: str) -> Self:
        if tenant != self.tenant:
            raise ValueError("DeerFlow's thread metadata has no tenants")
        return super().for_tenant(tenant)

    async def get(self, thread_id: str | UUID, *, user_id: str | AnyUser) -> ThreadRecord | None:
        record = await super().get(thread_id, user_id=user_id)
        if record is None and self._shares:
            anyones = await super().get(thread_id, user_id=ANY_USER)
            return anyones if anyones is not None and anyones.user_id is None else None
        return record

    async def check_access(self, thread_id: str | UUID, user_id: str | None, *, require_existing: bool = True) -> bool:
        if await super().check_access(thread_id, user_id, require_existing=require_existing):
            return True
        return self._shares and user_id is not None and await self.get(thread_id, user_id=user_id) is not None

    async def _open(self) -> None:
        """The store is open, on this loop."""
        self._loop.adopt(asyncio.get_running_loop())

    async def _close(self) -> None:
        """The store is the lender's."""

    async def _read(self, keys: Sequence[str]) -> tuple[int, dict[str, Row]]:
        return microseconds(), {key: row for key in keys if (row := await self._row(key)) is not None}

    async def _insert(self, keys: Sequence[str], new: NewThread) -> Inserted:
        return Inserted(microseconds(), {key for key in keys if (await self._made(key, new))[1]})

    async def _claim_all(self, keys: builtins.list[str], new: NewThread) -> dict[str, Claim]:
        self._check_open()
        return {key: await self._claimed(key, new) for key in keys}

    async def _settle(self, key: str, new: NewThread, now: int, row: Row | None) -> Claim:
        if row is None:
            return await self._claimed(key, new)
        if self._shares and not row.user_id:
            return Claim(key, True, False, rules.record_of(row))
        return rules.claim(key, new, 0)(now, row).answer

    async def _change(self, key: str, rule: Rule[T]) -> T:
        async with self._turn(key):
            row = await self._row(key)
            if row is not None and not row.user_id:
                row = None  # without a filter nothing is written
            outcome = rule(microseconds(), row)
            if row is None or outcome.row is None:
                return outcome.answer
            await self._write(row, outcome.row)
            return _answer(outcome.answer, outcome.row, await self._row(key))

    async def _remove(self, key: str, change: str) -> None:
        """There are no tombstones."""

    async def _page(self, query: Query) -> builtins.list[Row]:
        if (query.sort_by, query.sort_order) != ("updated_at", "desc"):
            raise ValueError("sort_by, sort_order: DeerFlow lists threads by updated_at, descending, and not otherwise")
        if query.filters.ids is not None:
            raise ValueError("ids: DeerFlow's thread metadata cannot be searched for them")
        skipped = _offset(query)
        if query.filters.metadata == "{}":
            return await self._searched(query.user_id, query.filters, query.limit, skipped)
        rows = list[Row]()
        async for row in self._walk(query.user_id, query.filters):
            if skipped:
                skipped -= 1
                continue
            rows.append(row)
            if len(rows) == query.limit:
                break
        return rows

    def _place_after(self, last: Row, query: Query) -> tuple[int, str]:
        return _offset(query) + query.limit - 1, "offset"  # a page asks for one more than it shows

    async def _count(self, user_id: str, filters: Filters) -> int:
        return sum([1 async for _ in self._walk(user_id, filters)])

    async def _sweep(self, limit: int, change: str) -> int:
        return 0

    def _checked_ttl(self, ttl_seconds: float | None) -> int | None:
        if ttl_seconds is not None:
            raise ValueError("ttl_seconds: DeerFlow's threads do not expire")
        return None

    async def _claimed(self, key: str, new: NewThread) -> Claim:
        row, created = await self._made(key, new)
        if created:
            return Claim(key, True, True, rules.record_of(row))
        return await self._settle(key, new, microseconds(), row)

    async def _made(self, key: str, new: NewThread) -> tuple[Row, bool]:
        """The row of a thread, and whether this call made it."""
        async with self._turn(key):
            found = await self._row(key)
            if found is not None:
                return found, False
            failed = await self._created(key, new)
            row = await self._row(key)
            if row is None:
                raise StoreUnavailableError("DeerFlow's store does not have the thread that was created") from failed
            return row, failed is None and row.user_id == new.user_id

    async def _created(self, key: str, new: NewThread) -> Exception | None:
        """Create, with the status in a second step, as DeerFlow does; or why it failed."""

        def create() -> Awaitable[Record]:
            return self._store.create(
                key,
                assistant_id=new.assistant_id,
                user_id=new.user_id,
                display_name=new.display_name,
                metadata=json.loads(new.metadata),
            )

        try:
            await self._ask(create)
            if new.status != "idle":
                await self._ask(lambda: self._store.update_status(key, new.status, user_id=new.user_id))
        except StoreUnavailableError as error:
            return error
        return None

    async def _write(self, old: Row, new: Row) -> None:
        key, owner = old.thread_id, old.user_id
        if new.deleted_at is not None:
            await self._ask(lambda: self._store.delete(key, user_id=owner))
        elif new.user_id != owner:
            await self._ask(lambda: self._store.update_owner(key, new.user_id, user_id=owner))
        else:
            await self._update(old, new)

    async def _update(self, old: Row, new: Row) -> None:
        if new.assistant_id != old.assistant_id:
            raise ValueError("assistant_id: DeerFlow's thread metadata has it from the thread's creation only")
        key, owner, store = old.thread_id, old.user_id, self._store
        merged, touched = changed_metadata(old, new), new.updated_at != old.updated_at
        is_named, has_status = new.display_name != old.display_name, new.status != old.status
        if merged or (touched and not is_named and not has_status):
            touch = {} if touched else {"touch": False}  # older stores have no such keyword
            await self._ask(lambda: store.update_metadata(key, merged, user_id=owner, **touch))
        if is_named:
            await self._ask(lambda: store.update_display_name(key, new.display_name, user_id=owner))
        if has_status:
            await self._ask(lambda: store.update_status(key, new.status, user_id=owner))

    async def _row(self, key: str) -> Row | None:
        record = await self._ask(lambda: self._store.get(key, user_id=None))
        return None if record is None else row_of(key, record)

    async def _walk(self, user_id: str, filters: Filters) -> AsyncIterator[Row]:
        """A user's threads that match. DeerFlow's stores differ in what their own metadata filters mean."""
        offset = 0
        while True:
            rows = await self._searched(user_id, filters, _STRETCH, offset)
            for row in rows:
                if matches(row, filters, now=0):
                    yield row
            if len(rows) < _STRETCH:
                return
            offset += _STRETCH

    async def _searched(self, user_id: str, filters: Filters, limit: int, offset: int) -> builtins.list[Row]:
        records = await self._ask(
            lambda: self._store.search(status=filters.status, limit=limit, offset=offset, user_id=user_id)
        )
        return [row_of(record["thread_id"], record) for record in records]

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        return await self.runner.acall(self._asked(call))

    async def _asked(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await call()
        except Exception as error:  # of whatever database the store is made for
            raise StoreUnavailableError(f"DeerFlow's thread metadata store failed: {type(error).__name__}") from error

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[key]


class _Turn:
    """One thread's lock, for as long as somebody has it or waits."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


def _turns_of(store: object) -> dict[str, _Turn]:
    """Kept on the store, so that all maps over it take turns; unless it has no place for that."""
    try:
        turns: dict[str, _Turn] = vars(store).setdefault("_deerflow_replica_turns", {})
    except TypeError:
        return {}
    return turns


def _offset(query: Query) -> int:
    """How many threads come before the page: a cursor's, or the caller's own."""
    return query.offset if query.after == start(query.sort_order) else max(query.after[0], 0)


def _answer(answer: T, wanted: Row, found: Row | None) -> T:
    """What has become of it, as the store tells."""
    if wanted.deleted_at is not None:
        return answer
    is_so = found is not None and found.user_id == wanted.user_id
    if isinstance(answer, ThreadRecord):
        return rules.record_of(found) if found is not None and is_so else None  # type: ignore[return-value]  # T is ThreadRecord | None
    return is_so  # type: ignore[return-value]  # T is bool
