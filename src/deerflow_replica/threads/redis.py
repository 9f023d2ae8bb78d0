"""The thread map in Redis or Valkey, for any number of replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .._drivers.redis import Command, Script
from .._drivers.redis_database import Ask, RedisDatabase
from . import rules
from .base import ThreadMap
from .filters import matches, selected
from .paging import Filters, Query, position, start
from .redis_rows import ThreadKeys, beyond, claim_arguments, found_of, owners_of, row_of, rows_of, text_of
from .rules import Inserted, NewThread, Row, Rule

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

_PACKAGE = __package__ or ""
READ = Script(_PACKAGE, "redis_read.lua")
OWNERS = Script(_PACKAGE, "redis_owners.lua")
CLAIM = Script(_PACKAGE, "redis_claim.lua")
CHANGE = Script(_PACKAGE, "redis_change.lua")
PAGE = Script(_PACKAGE, "redis_page.lua")
COUNT = Script(_PACKAGE, "redis_count.lua")
ENDED = Script(_PACKAGE, "redis_ended.lua")
_MOST_KEYS = 1000
_STRETCH = 500  # rows that are looked at together where a filter leaves some out


class RedisThreadMap(ThreadMap):
    """A `ThreadMap` on one Redis >= 7.0 or Valkey >= 7.2. The clock is the server's.

    A tenant's keys share one slot and have no time to live: keep the server from evicting, and let it write to disk.
    A `client` is borrowed: a connection of ours is made with its settings, and it is never changed or closed. A call
    whose connection is lost is repeated; a repeated claim, update, transfer or delete recognises that its first
    attempt had arrived.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        client: Redis | None = None,
        key_prefix: str = "deerflow:utm",
        tenant: str = "default",
        ttl_seconds: float | None = None,
        tombstone_seconds: float = 2_592_000.0,
        operation_timeout_seconds: float = 10.0,
        _database: RedisDatabase | None = None,
    ) -> None:
        super().__init__(
            tenant=tenant,
            ttl_seconds=ttl_seconds,
            tombstone_seconds=tombstone_seconds,
            operation_timeout_seconds=operation_timeout_seconds,
        )
        if not key_prefix or key_prefix.startswith("}"):
            raise ValueError("key_prefix must not be empty, nor begin with a brace: keys would share no slot")
        self._prefix = key_prefix
        self._keys = ThreadKeys(key_prefix, self.tenant)
        self._database = _database or RedisDatabase(redis_url, client=client, timeout_seconds=self._timeout_seconds)
        self._database.know(READ, OWNERS, CLAIM, CHANGE, PAGE, COUNT, ENDED)
        self.runner = self._database.runner

    def for_tenant(self, tenant: str) -> Self:
        view = super().for_tenant(tenant)
        view._keys = ThreadKeys(self._prefix, view.tenant)
        return view

    async def _open(self) -> None:
        await self._database.open()

    async def _close(self) -> None:
        await self._database.close()

    async def _read(self, keys: Sequence[str]) -> tuple[int, dict[str, Row]]:
        async def work(ask: Ask) -> tuple[int, dict[str, Row]]:
            return await self._rows(ask, keys)

        return await self._database.execute(work)

    async def _owners(self, keys: Sequence[str]) -> dict[str, str]:
        async def work(ask: Ask) -> dict[str, str]:
            parts = _parts(keys)
            replies = await ask(*(OWNERS.command([self._keys.rows], part) for part in parts))
            return {
                key: owner for part, reply in zip(parts, replies, strict=True) for key, owner in owners_of(part, reply)
            }

        return await self._database.execute(work)

    async def _insert(self, keys: Sequence[str], new: NewThread) -> Inserted:
        _, _, inserted = await self._read_or_insert(keys, new)
        return inserted

    async def _read_or_insert(self, keys: Sequence[str], new: NewThread) -> tuple[int, dict[str, Row], Inserted]:
        names = [self._keys.rows, *self._keys.of_user(new.user_id)]
        command = CLAIM.command(names, [*claim_arguments(new), *keys])

        async def work(ask: Ask) -> list[Any]:
            [reply] = await ask(command)
            return list(reply)

        now, found = await self._database.execute(work)
        rows = dict(found_of(keys, found))
        return int(now), rows, Inserted(int(now), set(keys) - rows.keys())

    async def _change(self, key: str, rule: Rule[T]) -> T:
        async def work(ask: Ask) -> T:
            now, rows = await self._rows(ask, [key])
            row = rows.get(key)
            while True:
                outcome = rule(now, row)
                if outcome.row is None:
                    return outcome.answer
                [reply] = await ask(self._replacing(key, row, outcome.row))
                if not reply:
                    return outcome.answer
                now, row = int(reply[0]), None if reply[1] is None else row_of(key, reply[1])

        return await self._database.execute(work)

    async def _remove(self, key: str, change: str) -> None:
        command = CHANGE.command([self._keys.rows, self._keys.buried], [key, change, "", key, "", 0])
        await self._database.execute(lambda ask: ask(command))

    async def _page(self, query: Query) -> list[Row]:
        ids = query.filters.ids
        if ids is not None:
            now, rows = await self._read_all(sorted(ids))
            return selected(rows.values(), query, now)

        async def work(ask: Ask) -> list[Row]:
            return await self._walked(ask, query)

        return await self._database.execute(work)

    async def _count(self, user_id: str, filters: Filters) -> int:
        if not filters.is_none:
            return len(await self._page(Query(user_id, filters, "created_at", "asc", start("asc"), 2**62, 0)))
        names = [self._keys.order(user_id, "created_at"), self._keys.expiring_of(user_id)]

        async def work(ask: Ask) -> int:
            [count] = await ask(COUNT.command(names, []))
            return int(count)

        return await self._database.execute(work)

    async def _sweep(self, limit: int, change: str) -> int:
        names = [self._keys.rows, self._keys.expiring, self._keys.buried]

        async def work(ask: Ask) -> int:
            [(expired, old)] = await ask(ENDED.command(names, [self._tombstone, limit]))
            ended = rows_of(expired)
            buried = [
                self._replacing(row.thread_id, row, rules.buried(row, row.expires_at or 0, change)) for row in ended
            ]
            dropped = [self._replacing(row.thread_id, row, None) for row in rows_of(old)]
            replies = await ask(*buried, *dropped) if buried or dropped else []
            return sum(not reply for reply in replies[: len(buried)])

        return await self._database.execute(work, retry=False)  # run twice, it would count what it no longer finds

    async def _rows(self, ask: Ask, keys: Sequence[str]) -> tuple[int, dict[str, Row]]:
        parts = _parts(keys)
        replies = await ask(*(READ.command([self._keys.rows], part) for part in parts))
        rows = {key: row for part, (_, found) in zip(parts, replies, strict=True) for key, row in found_of(part, found)}
        return int(replies[0][0]), rows

    def _replacing(self, key: str, old: Row | None, new: Row | None) -> Command:
        moves = self._keys.moves(old, new)
        moved = [value for move in moves.values() for value in move]
        text = "" if new is None else text_of(new)
        return CHANGE.command([self._keys.rows, *moves], [key, old.change if old else "", text, *moved])

    async def _walked(self, ask: Ask, query: Query) -> list[Row]:
        """Stretch by stretch until there are enough that match; mostly the first one is."""
        names = [self._keys.order(query.user_id, query.sort_by), self._keys.rows, self._keys.expiring_of(query.user_id)]
        found, after, left = list[Row](), query.after, query.offset
        size = query.limit if query.filters.is_none else min(max(query.limit, _STRETCH), 2 * _STRETCH)
        while len(found) < query.limit:
            skipped = left if query.filters.is_none else 0
            [reply] = await ask(PAGE.command(names, [query.sort_order, beyond(after), skipped, size]))
            now, left_out, stretch = reply
            rows = rows_of(stretch)
            matching = [row for row in rows if matches(row, query.filters, now=int(now))]
            left -= int(left_out)
            found += matching[left:]
            left = max(0, left - len(matching))
            if len(rows) < size:
                break
            after = position(rows[-1], query.sort_by)
        return found[: query.limit]


def _parts(keys: Sequence[str]) -> list[Sequence[str]]:
    """What Lua has room for at once."""
    return [keys[start : start + _MOST_KEYS] for start in range(0, len(keys), _MOST_KEYS)]
