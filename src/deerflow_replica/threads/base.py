"""ThreadMap: who owns a thread, and which threads a user has.

The public methods are here: they check the input, ask the pure rules, and leave the rest to a backend's hooks.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from . import inputs, rules, validation
from .backend import ThreadBackend
from .paging import Query, binding, position, write_cursor
from .rules import Changes, Inserted, NewThread, Row, Rule
from .values import UNSET, AnyUser, Claim, SortBy, SortOrder, ThreadPage, ThreadRecord, Unset

T = TypeVar("T")


class ThreadMap(ThreadBackend):
    """Owners and lists of threads, atomic across replicas.

    A thread has one owner: the first claim of any replica. Nothing is cached: a transfer or a delete counts at once,
    everywhere. Usable from every event loop and every thread once it is set up (`async with`, or `setup` and `close`);
    a map on a borrowed async pool or client only from the loop that owns it and the threads beside it.

    Raises `ValueError` for bad input, before anything is written, and `StoreUnavailableError` when the store is away
    or the map is closed, within `operation_timeout_seconds`.
    """

    async def claim(
        self,
        thread_id: str | UUID,
        user_id: str,
        *,
        assistant_id: str | None = None,
        display_name: str | None = None,
        status: str = "idle",
        metadata: Mapping[str, Any] | None = None,
        ttl_seconds: float | Unset | None = UNSET,
    ) -> Claim:
        """Take a thread that nobody has; of any number of concurrent claimers exactly one is `created`.

        An own thread is granted and left as it is. A foreign one, live or deleted, is refused without a record.
        """
        key = validation.thread_key(thread_id)
        new = inputs.new_thread(user_id, assistant_id, display_name, status, metadata, self._ttl_of(ttl_seconds))
        return (await self._claim_all([key], new))[key]

    async def hold(self, thread_id: str | UUID, user_id: str) -> bool:
        """`claim` without fields, for callers who do not need the record: whether it was granted."""
        key, user = validation.thread_key(thread_id), validation.user_key(user_id)
        now, row = await self._read_one(key)
        if row is not None and row.user_id == user and rules.ended_at(row, now) is None:
            return True
        new = inputs.new_thread(user, None, None, "idle", None, self._ttl)
        rows = {} if row is None else {key: row}
        claims = await self._settled([key], new, now, rows, await self._insert_missing([key], new, rows))
        return claims[key].granted

    async def claim_many(
        self,
        thread_ids: Iterable[str | UUID],
        user_id: str,
        *,
        assistant_id: str | None = None,
        display_name: str | None = None,
        status: str = "idle",
        metadata: Mapping[str, Any] | None = None,
        ttl_seconds: float | Unset | None = UNSET,
    ) -> builtins.list[Claim]:
        """`claim` for at most 1000 ids, answers in input order. Atomic for each id, not as a whole.

        A repeated id is `created` once. One bad id refuses the whole call.
        """
        keys = validation.claimed_keys(thread_ids)
        new = inputs.new_thread(user_id, assistant_id, display_name, status, metadata, self._ttl_of(ttl_seconds))
        return _in_order(keys, await self._claim_all(builtins.list(dict.fromkeys(keys)), new))

    async def owner_of(self, thread_id: str | UUID) -> str | None:
        """The owner's id, or None for a missing thread. Trusted code only: it names the owner."""
        key = validation.thread_key(thread_id)
        self._check_open()
        return (await self._owners([key])).get(key) or None

    async def owners_of(self, thread_ids: Iterable[str | UUID]) -> dict[str, str | None]:
        """The owners of many threads in one round trip; missing threads are absent. Trusted code only."""
        keys = builtins.list(dict.fromkeys(validation.thread_keys(thread_ids)))
        self._check_open()
        owners = await self._owners(keys) if keys else {}
        return {key: owners[key] or None for key in keys if key in owners}

    async def get(self, thread_id: str | UUID, *, user_id: str | AnyUser) -> ThreadRecord | None:
        """The thread, or None when it is missing or somebody else's. `ANY_USER` is for trusted code."""
        key, user = validation.thread_key(thread_id), inputs.user_or_any(user_id)
        now, row = await self._read_one(key)
        seen = rules.visible(row, now, user)
        return None if seen is None else rules.record_of(seen)

    async def list(
        self,
        user_id: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        offset: int = 0,
        sort_by: SortBy = "updated_at",
        sort_order: SortOrder = "desc",
        status: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ids: Iterable[str | UUID] | None = None,
    ) -> ThreadPage:
        """A page of at most `limit` (1 to 1000) threads in the total order `(sort key, thread_id)`.

        `metadata` is JSON equality on top-level keys, `ids` restricts to a set. Pass `next_cursor` on with the same
        user, order and filters (else `ValueError`); it survives the deletion of any thread. In `created_at` order a
        walk shows every thread that lives throughout exactly once; in `updated_at` descending order none twice.
        `offset` costs time in proportion, and excludes a cursor.
        """
        filters = inputs.filters(status, metadata, ids)
        query = inputs.query(self._tenant, user_id, filters, limit, cursor, offset, sort_by, sort_order)
        self._check_open()
        rows = await self._page(query)
        return self._as_page(rows, query, limit)

    async def count(self, user_id: str, *, status: str | None = None, metadata: Mapping[str, Any] | None = None) -> int:
        """How many live threads the user has, exactly; the filters are those of `list`."""
        user, filters = validation.user_key(user_id), inputs.filters(status, metadata, None)
        self._check_open()
        return await self._count(user, filters)

    async def update(
        self,
        thread_id: str | UUID,
        *,
        user_id: str | AnyUser,
        assistant_id: str | Unset | None = UNSET,
        display_name: str | Unset | None = UNSET,
        status: str | Unset = UNSET,
        metadata: Mapping[str, Any] | None = None,
        replace_metadata: bool = False,
        remove_metadata: Iterable[str] = (),
        ttl_seconds: float | Unset | None = UNSET,
        touch: bool = True,
        if_version: int | None = None,
    ) -> ThreadRecord | None:
        """Change a thread atomically; None when it is missing or somebody else's. No fields: a touch.

        `metadata` is merged shallowly (or replaces all), then the keys in `remove_metadata` go. `touch` makes
        `updated_at` strictly greater and renews the expiry. `if_version` that differs: `VersionConflictError` with
        the current `ThreadRecord`, for the owner only.
        """
        key, user = validation.thread_key(thread_id), inputs.user_or_any(user_id)
        changes = Changes(
            assistant_id=inputs.kept_or_text("assistant_id", assistant_id, 255),
            display_name=inputs.kept_or_text("display_name", display_name, 1024),
            status=UNSET if status is UNSET else validation.status_text(status),
            metadata=validation.metadata_text(metadata),
            replace_metadata=bool(replace_metadata),
            remove_metadata=validation.metadata_keys(remove_metadata),
            ttl=UNSET if ttl_seconds is UNSET else self._checked_ttl(ttl_seconds),
            touch=bool(touch),
            if_version=validation.optional_version(if_version),
            change=inputs.change_name(),
        )
        return await self._apply(key, rules.update(user, changes))

    async def touch(self, thread_id: str | UUID, *, user_id: str | AnyUser) -> bool:
        """`update` without fields, for callers who do not need the record: False when it is missing or foreign."""
        key, user = validation.thread_key(thread_id), inputs.user_or_any(user_id)
        return await self._apply(key, rules.touch(user, inputs.change_name()))

    async def transfer(
        self, thread_id: str | UUID, from_user_id: str, to_user_id: str, *, if_version: int | None = None
    ) -> bool:
        """Hand a thread over. True only when `from_user_id` owns it and the version fits; both times stay."""
        key = validation.thread_key(thread_id)
        giver = validation.user_key(from_user_id, "from_user_id")
        taker = validation.user_key(to_user_id, "to_user_id")
        version = validation.optional_version(if_version)
        return await self._apply(key, rules.transfer(giver, taker, version, inputs.change_name()))

    async def delete(self, thread_id: str | UUID, *, user_id: str | AnyUser) -> bool:
        """Remove the entry and its metadata; True once. A tombstone keeps the id from everyone but its former owner."""
        key, user = validation.thread_key(thread_id), inputs.user_or_any(user_id)
        change = inputs.change_name()
        deleted = await self._apply(key, rules.delete(user, change))
        if deleted and not self._tombstone:
            await self._remove(key, change)  # only now: by the tombstone a repeated attempt knows its first one
        return deleted

    async def check_access(self, thread_id: str | UUID, user_id: str | None, *, require_existing: bool = True) -> bool:
        """May this user use this thread? With `require_existing=False` also one that nobody has or had.

        None is a caller without identity: only ever allowed on an id without owner and tombstone, in that mode.
        """
        key = validation.thread_key(thread_id)
        user = None if user_id is None else validation.user_key(user_id)
        now, row = await self._read_one(key)
        return rules.may_access(row, now, user, require_existing=require_existing, tombstone=self._tombstone)

    async def sweep(self, *, limit: int = 1000) -> int:
        """Remove up to `limit` (1 to 1000) expired threads, and tombstones past their time.

        Returns the number of threads; the sum over all replicas is exact. Nothing depends on it but space.
        """
        most = validation.whole_number("limit", limit, 1, 1000)
        self._check_open()
        return await self._sweep(most, inputs.change_name())

    async def _claim_all(self, keys: builtins.list[str], new: NewThread) -> dict[str, Claim]:
        self._check_open()
        return await self._settled(keys, new, *await self._read_or_insert(keys, new)) if keys else {}

    async def _settled(
        self, keys: builtins.list[str], new: NewThread, now: int, rows: Mapping[str, Row], inserted: Inserted
    ) -> dict[str, Claim]:
        """What was not inserted (own and foreign ones, lost races, old tombstones) is settled one by one."""
        claims = {key: Claim(key, True, True, rules.record_of(new.row(key, inserted.at))) for key in inserted.keys}
        for key in keys:
            if key not in claims:
                claims[key] = await self._settle(key, new, now, rows.get(key))
        return claims

    async def _settle(self, key: str, new: NewThread, now: int, row: Row | None) -> Claim:
        rule = rules.claim(key, new, self._tombstone)
        if row is not None:
            outcome = rule(now, row)
            if outcome.row is None:
                return outcome.answer
        return await self._change(key, rule)

    async def _apply(self, key: str, rule: Rule[T]) -> T:
        self._check_open()
        return await self._change(key, rule)

    async def _read_one(self, key: str) -> tuple[int, Row | None]:
        self._check_open()
        now, rows = await self._read([key])
        return now, rows.get(key)

    async def _read_all(self, keys: builtins.list[str]) -> tuple[int, dict[str, Row]]:
        self._check_open()
        return await self._read(keys) if keys else (0, {})

    def _ttl_of(self, ttl_seconds: float | Unset | None) -> int | None:
        return self._ttl if ttl_seconds is UNSET else self._checked_ttl(ttl_seconds)

    def _checked_ttl(self, ttl_seconds: float | None) -> int | None:
        return validation.optional_micros("ttl_seconds", ttl_seconds)

    def _as_page(self, rows: builtins.list[Row], query: Query, limit: int) -> ThreadPage:
        next_cursor = None
        if len(rows) > limit:
            bound_to = binding(self._tenant, query.user_id, query.sort_by, query.sort_order, query.filters)
            next_cursor = write_cursor(self._place_after(rows[limit - 1], query), bound_to)
        return ThreadPage(tuple(rules.record_of(row) for row in rows[:limit]), next_cursor)

    def _place_after(self, last: Row, query: Query) -> tuple[int, str]:
        """Where the next page begins."""
        return position(last, query.sort_by)


def _in_order(keys: builtins.list[str], claims: dict[str, Claim]) -> builtins.list[Claim]:
    """The answers in input order; a repeated id is `created` the first time only."""
    answers, seen = [], set[str]()
    for key in keys:
        claim = claims[key]
        answers.append(Claim(key, claim.granted, claim.created and key not in seen, claim.record))
        seen.add(key)
    return answers
