"""The thread map in MongoDB, for any number of replicas."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from .._drivers.mongo_clock import ServerClock
from .._drivers.mongodb import Client, Collection, MongoDatabase, check_names, collection_of, refusals
from .._extras import extra
from . import rules
from .base import ThreadMap
from .filters import metadata_matches
from .mongo_rows import (
    PARTS_OF_OWNERS,
    beyond,
    document_of,
    expired,
    id_of,
    lives,
    matching,
    of_user,
    row_of,
    rows_of,
    unexpired,
    with_ids,
)
from .paging import Filters, Query
from .rules import Inserted, NewThread, Row, Rule

with extra("mongodb"):
    from pymongo import DeleteOne, ReplaceOne, WriteConcern
    from pymongo.errors import BulkWriteError, DuplicateKeyError

T = TypeVar("T")

_DUPLICATE_KEY = 11000
_MOST_BETWEEN = 0.02  # seconds between tries, when others change the same thread
_MOST_SKIPPED = 2**31 - 1
_DIRECTIONS = {"desc": -1, "asc": 1}


class MongoThreadMap(ThreadMap):
    """A `ThreadMap` in one collection of MongoDB. The clock is the server's, as it told it within the last seconds.

    Pass a `uri`, or a `client`, which is borrowed and never closed. Each write changes one document, so a standalone
    server will do; of a replica set the majority has it, whatever the client's settings say. A call whose connection is
    lost is repeated; a repeated claim, update, transfer or delete recognises that its first attempt had arrived.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        client: Client | None = None,
        database: str = "deerflow",
        collection: str = "user_thread_mappings",
        tenant: str = "default",
        ttl_seconds: float | None = None,
        tombstone_seconds: float = 2_592_000.0,
        operation_timeout_seconds: float = 10.0,
        _database: MongoDatabase | None = None,
        _clock: ServerClock | None = None,
    ) -> None:
        super().__init__(
            tenant=tenant,
            ttl_seconds=ttl_seconds,
            tombstone_seconds=tombstone_seconds,
            operation_timeout_seconds=operation_timeout_seconds,
        )
        check_names(database, collection)
        self._names = database, collection
        self._clock = _clock or ServerClock()
        self._database = _database or MongoDatabase(uri, client=client, timeout_seconds=self._timeout_seconds)
        self.runner = self._database.runner

    async def _open(self) -> None:
        await self._database.open()
        try:
            with refusals():
                await self._database.execute(self._create_indexes)
        except BaseException:
            await self._database.close()
            raise

    async def _close(self) -> None:
        await self._database.close()

    async def _read(self, keys: Sequence[str]) -> tuple[int, dict[str, Row]]:
        async def work(threads: Collection, now: int) -> tuple[int, dict[str, Row]]:
            found = threads.find(with_ids(self._tenant, keys)).batch_size(len(keys) + 1)
            return now, {row.thread_id: row async for row in rows_of(found)}

        return await self._asked(work)

    async def _owners(self, keys: Sequence[str]) -> dict[str, str]:
        async def work(threads: Collection, now: int) -> dict[str, str]:
            found = threads.find(with_ids(self._tenant, keys), PARTS_OF_OWNERS).batch_size(len(keys) + 1)
            return {part["thread_id"]: part["user_id"] async for part in found if lives(part, now)}

        return await self._asked(work)

    async def _insert(self, keys: Sequence[str], new: NewThread) -> Inserted:
        async def work(threads: Collection, now: int) -> Inserted:
            try:
                await threads.insert_many([document_of(self._tenant, new.row(key, now)) for key in keys], ordered=False)
            except BulkWriteError as error:
                failed = error.details["writeErrors"]
                if any(one["code"] != _DUPLICATE_KEY for one in failed):
                    raise
                return Inserted(now, set(keys) - {keys[one["index"]] for one in failed})
            return Inserted(now, set(keys))

        return await self._asked(work)

    async def _change(self, key: str, rule: Rule[T]) -> T:
        async def work(threads: Collection, now: int) -> T:
            while True:
                found = await threads.find_one({"_id": id_of(self._tenant, key)})
                row = None if found is None else row_of(found)
                outcome = rule(now, row)
                if outcome.row is None or await self._replaced(threads, row, outcome.row):
                    return outcome.answer
                await asyncio.sleep(random.uniform(0, _MOST_BETWEEN))  # noqa: S311  # jitter, not a secret
                now = await self._clock.now(threads.database.client)

        return await self._asked(work)

    async def _remove(self, key: str, change: str) -> None:
        async def work(threads: Collection, _: int) -> None:
            await threads.delete_one({"_id": id_of(self._tenant, key), "change": change})

        await self._asked(work)

    async def _page(self, query: Query) -> list[Row]:
        direction = _DIRECTIONS[query.sort_order]
        order = [(query.sort_by, direction), ("thread_id", direction)]

        async def work(threads: Collection, now: int) -> list[Row]:
            wanted = of_user(self._tenant, query.user_id, query.filters)
            async with threads.find(wanted | {"$and": [beyond(query), unexpired(now)]}).sort(order) as found:
                if query.filters.metadata != "{}":
                    return await matching(found, query)
                page = found.skip(min(query.offset, _MOST_SKIPPED)).limit(query.limit).batch_size(query.limit)
                return [row async for row in rows_of(page)]

        return await self._asked(work)

    async def _count(self, user_id: str, filters: Filters) -> int:
        async def work(threads: Collection, now: int) -> int:
            wanted = of_user(self._tenant, user_id, filters) | unexpired(now)
            if filters.metadata == "{}":
                return await threads.count_documents(wanted)
            found = threads.find(wanted, {"metadata": 1})
            return sum([metadata_matches(one["metadata"], filters.metadata) async for one in found])

        return await self._asked(work)

    async def _sweep(self, limit: int, change: str) -> int:
        async def work(threads: Collection, now: int) -> int:
            ended = [row async for row in rows_of(threads.find(expired(self._tenant, now)).limit(limit))]
            buried = [self._replacing(row, rules.buried(row, row.expires_at or now, change)) for row in ended]
            swept = (await threads.bulk_write(buried, ordered=False)).matched_count if buried else 0
            past = {"tenant": self._tenant, "live": False, "deleted_at": {"$lte": now - self._tombstone}}
            old = threads.find(past, {"change": 1})
            dropped = [DeleteOne(found) async for found in old.limit(limit)]
            if dropped:
                await threads.bulk_write(dropped, ordered=False)
            return swept

        return await self._asked(work, retry=False)  # run twice, it would count what it no longer finds

    async def _replaced(self, threads: Collection, old: Row | None, new: Row) -> bool:
        """False when another replica changed it after it was read."""
        if old is not None:
            done = await threads.bulk_write([self._replacing(old, new)])
            return done.matched_count == 1
        try:
            await threads.insert_one(document_of(self._tenant, new))
        except DuplicateKeyError:
            return False
        return True

    def _replacing(self, old: Row, new: Row) -> ReplaceOne[Any]:
        document = document_of(self._tenant, new)
        return ReplaceOne({"_id": document["_id"], "change": old.change}, document)

    async def _create_indexes(self, client: Client) -> None:
        threads = self._threads(client)
        of_one_user = [("tenant", 1), ("user_id", 1), ("live", 1)]
        await threads.create_index([*of_one_user, ("updated_at", 1), ("thread_id", 1)], name="by_updated")
        await threads.create_index([*of_one_user, ("created_at", 1), ("thread_id", 1)], name="by_created")
        await threads.create_index([("tenant", 1), ("live", 1), ("expires_at", 1)], name="by_expires")
        await threads.create_index([("tenant", 1), ("live", 1), ("deleted_at", 1)], name="by_deleted")

    async def _asked(self, work: Callable[[Collection, int], Awaitable[T]], *, retry: bool = True) -> T:
        """`work` with the collection and the time."""

        async def asked(client: Client) -> T:
            return await work(self._threads(client), await self._clock.now(client))

        with refusals():
            return await self._database.execute(asked, retry=retry)

    def _threads(self, client: Client) -> Collection:
        return collection_of(client, *self._names).with_options(write_concern=WriteConcern("majority"))
