"""The store's hooks on a collection of MongoDB."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import orjson

from .._drivers.mongo_clock import ServerClock
from .._drivers.mongodb import Client, Collection, MongoServer, collection_of, refusals
from .._extras import extra
from ..errors import ConfigError, StoreUnavailableError
from . import listing
from .backend import Backend
from .conditions import AllOf, holds
from .import_mongodb import check_duplicates, restored
from .mongo_documents import (
    ABSENT,
    Document,
    alive,
    below,
    expired,
    id_of,
    of_version,
    putting,
    row_of,
    version_of,
    written_of,
)
from .mongo_values import from_stored, prefilter
from .values import Conflict, Count, Get, ListNamespaces, OnConflict, Place, Read, Restored, Row, Search, Write, Written

with extra("mongodb"):
    from pymongo import ReturnDocument, UpdateOne
    from pymongo.errors import BulkWriteError, DuplicateKeyError

S = TypeVar("S")
T = TypeVar("T")

_SCHEMA_VERSION = 1
_MOST = 1000  # items in one command, which holds 16 MiB: an id has up to 2 KiB
SCANS = 8  # at the same time
_NO_LIMIT = 2**31 - 1
_SWEEP_LEASE = 60_000_000  # microseconds after which a sweeper that died is not waited for


class MongoBackend(Backend):
    """Every document is changed in one step of the server's, so nothing here needs a transaction."""

    slots = 4

    def __init__(self, server: MongoServer, client: Client | None, database: str, collection: str) -> None:
        self._server = server
        self._owns_client = client is None
        self._client = client
        self._database = database
        self._collection = collection
        self._clock = ServerClock()
        self._scanning = asyncio.Semaphore(SCANS)
        self._is_set_up = False

    async def open(self) -> None:
        if self._client is None:
            self._client = await self._server.connect()

    async def close(self) -> None:
        if self._client is not None and self._owns_client:
            client, self._client = self._client, None
            await client.close()

    async def set_up(self, *, create_schema: bool) -> None:
        async def work(client: Client) -> None:
            about = self._about(client)
            if await self._schema(about) == _SCHEMA_VERSION:
                return
            items = collection_of(client, self._database, self._collection)
            await items.create_index([("updated_at", -1), ("_id", 1)], name="by_update")
            await items.create_index([("namespace", 1)], name="by_namespace")
            await items.create_index([("expires_at", 1)], name="by_expiry")
            await about.update_one({"_id": "schema"}, {"$set": {"number": _SCHEMA_VERSION}}, upsert=True)

        with refusals(self._server.name):
            await self._server.run(self._opened(), work)

    async def run(self, reads: Sequence[Read], writes: Sequence[Write], *, live: bool) -> list[Any]:
        answers = await self._answers(reads, live=live)
        deletes = [id_of(write.place) for write in writes if write.document is None]
        puts = [write for write in writes if write.document is not None]
        for some in _parts(deletes):
            await self._asked(partial(_delete, ids=some))
        for part in _parts(puts):
            await self._asked(partial(_put, writes=part, live=live))
        return answers

    async def write_if(self, write: Write, *, live: bool) -> Written | Conflict:
        async def work(items: Collection, now: int) -> Written | Conflict:
            conditional = _Conditional(items, write, now, live=live)
            while True:
                outcome = await conditional.outcome()
                if outcome != Conflict(write.if_version or 0):  # else it went while we looked what it was
                    return outcome

        return await self._asked(work, retry=False)

    async def touch(self, places: Sequence[Place]) -> None:
        for some in _parts([id_of(place) for place in places]):
            await self._asked(partial(_touch, ids=some))

    async def delete_namespace(self, prefix: str, *, live: bool) -> int:
        async def work(items: Collection, now: int) -> int:
            deleted = await items.delete_many(below(prefix) | alive(now, live=live))
            if live:
                await items.delete_many(below(prefix))
            return deleted.deleted_count

        return await self._asked(work)

    async def sweep(self, limit: int) -> int | None:
        async def work(items: Collection, now: int) -> int | None:
            about, mine = self._about(self._opened()), {"by": secrets.token_hex(8)}
            try:
                taken = {"$set": mine | {"until": now + _SWEEP_LEASE}}
                await about.update_one({"_id": "sweep", "until": {"$lte": now}}, taken, upsert=True)
            except DuplicateKeyError:
                return None
            ids = [found["_id"] async for found in items.find(expired(now), {"_id": 1}).limit(limit)]
            deleted = await items.delete_many(expired(now) | {"_id": {"$in": ids}})
            await about.update_one({"_id": "sweep"} | mine, {"$set": {"until": 0}})
            return deleted.deleted_count

        return await self._asked(work, retry=False)

    async def restore(self, items: Sequence[Restored], *, on_conflict: OnConflict) -> int:
        work = partial(restored, on_conflict=on_conflict)
        return sum([await self._asked(partial(work, restoring=part), retry=False) for part in _parts(items)])

    async def _answers(self, reads: Sequence[Read], *, live: bool) -> list[Any]:
        ids = [id_of(read.place) for read in reads if isinstance(read, Get)]
        rows: dict[str, Row] = {}
        for some in _parts(ids):
            rows |= await self._asked(partial(_got, ids=some, live=live))
        scans = (self._scan(read, live=live) for read in reads if not isinstance(read, Get))
        scanned = iter(await asyncio.gather(*scans))
        return [rows.get(id_of(read.place)) if isinstance(read, Get) else next(scanned) for read in reads]

    async def _scan(self, read: Search | Count | ListNamespaces, *, live: bool) -> Any:
        async with self._scanning:
            return await self._asked(partial(_scanned, read=read, live=live))

    async def _asked(self, work: Callable[[Collection, int], Awaitable[T]], *, retry: bool = True) -> T:
        """`work` with the collection and the time, in microseconds."""

        async def asked(client: Client) -> T:
            if not self._is_set_up:
                await self._check_set_up(client)
            items = collection_of(client, self._database, self._collection)
            return await work(items, await self._clock.now(client))

        with refusals(self._server.name):
            return await self._server.run(self._opened(), asked, retry=retry)

    async def _check_set_up(self, client: Client) -> None:
        if not await self._schema(self._about(client)):
            raise ConfigError(f"{self._server.name} has no store {self._collection!r}: call setup() once")
        self._is_set_up = True

    async def _schema(self, about: Collection) -> int:
        """0 when there is none; raises `ConfigError` for what must not be touched."""
        found = await about.find_one({"_id": "schema"})
        if found is not None and found["number"] > _SCHEMA_VERSION:
            raise ConfigError(f"the store in {self._server.name} was written by a newer version of this package")
        return 0 if found is None else int(found["number"])

    def _opened(self) -> Client:
        if self._client is None:
            raise StoreUnavailableError(f"{self._server.name} is not open here")
        return self._client

    def _about(self, client: Client) -> Collection:
        return collection_of(client, self._database, f"{self._collection}.about")


class _Conditional:
    """One write over the version that is expected."""

    def __init__(self, items: Collection, write: Write, now: int, *, live: bool) -> None:
        self._items = items
        self._write = write
        self._now = now
        self._live = live
        self._place = {"_id": id_of(write.place)}
        self._there = self._place | alive(now, live=live)

    async def outcome(self) -> Written | Conflict:
        done = await (self._deleted() if self._write.document is None else self._put())
        return done or Conflict(version_of(await self._items.find_one(self._there, {"version": 1})))

    async def _deleted(self) -> Written | None:
        if not self._write.if_version:
            return None if await self._items.find_one(self._there, {"_id": 1}) else Written(0)
        deleted = await self._items.delete_one(self._there | of_version(self._write.if_version))
        return Written(0) if deleted.deleted_count else None

    async def _put(self) -> Written | None:
        found = await (self._replaced(self._write.if_version) if self._write.if_version else self._created())
        return None if found is None else written_of(found)

    async def _replaced(self, version: int) -> Document | None:
        update = putting(self._write, self._now)
        expected = self._there | of_version(version)
        return await self._items.find_one_and_update(expected, update, return_document=ReturnDocument.AFTER)

    async def _created(self) -> Document | None:
        if self._live:
            await self._items.delete_one(self._place | expired(self._now))
        update, absent = putting(self._write, self._now), self._place | ABSENT
        try:
            return await self._items.find_one_and_update(
                absent, update, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:
            return None


async def _delete(items: Collection, now: int, *, ids: Sequence[str]) -> None:
    await items.delete_many({"_id": {"$in": ids}})


async def _touch(items: Collection, now: int, *, ids: Sequence[str]) -> None:
    still = {"_id": {"$in": ids}, "expires_at": {"$gt": now}}
    for ttl in await items.distinct("ttl", still):
        await items.update_many(still | {"ttl": ttl}, {"$set": {"expires_at": now + ttl}})


async def _put(items: Collection, now: int, *, writes: Sequence[Write], live: bool) -> None:
    ids = [id_of(write.place) for write in writes]
    if live:
        await items.delete_many(expired(now) | {"_id": {"$in": ids}})
    upserts = [
        UpdateOne({"_id": one}, putting(write, now), upsert=True) for one, write in zip(ids, writes, strict=True)
    ]
    try:
        await items.bulk_write(upserts)
    except BulkWriteError as error:
        check_duplicates(error)
        await items.bulk_write(upserts)  # what another replica made meanwhile is there now


async def _got(items: Collection, now: int, *, ids: Sequence[str], live: bool) -> dict[str, Row]:
    wanted = alive(now, live=live) | {"_id": {"$in": ids}}
    return {found["_id"]: row_of(found) async for found in items.find(wanted)}


async def _scanned(items: Collection, now: int, *, read: Search | Count | ListNamespaces, live: bool) -> Any:
    there = alive(now, live=live)
    match read:
        case Search(prefix, condition):
            return await _found(items, read, there | below(prefix) | prefilter(condition))
        case Count(prefix, condition):
            return await _counted(items, condition, there | below(prefix) | prefilter(condition))
        case ListNamespaces():
            return listing.page(await items.distinct("namespace", there | below(listing.first_labels(read))), read)


async def _found(items: Collection, search: Search, wanted: Document) -> list[Row]:
    limit, rows = min(search.limit, _NO_LIMIT), list[Row]()
    if not limit:
        return rows
    async with items.find(wanted).sort([("updated_at", -1), ("_id", 1)]).allow_disk_use(True) as cursor:
        if not search.condition.conditions:
            return [row_of(found) async for found in cursor.skip(search.offset).limit(limit)]
        left_out = 0
        async for found in cursor:
            row = row_of(found)
            if not holds(search.condition, orjson.loads(row.document)):
                continue
            if left_out < search.offset:
                left_out += 1
                continue
            rows.append(row)
            if len(rows) == limit:
                break
    return rows


async def _counted(items: Collection, condition: AllOf, wanted: Document) -> int:
    if not condition.conditions:
        return await items.count_documents(wanted)
    count = 0
    async for found in items.find(wanted, {"value": 1}):
        count += holds(condition, orjson.loads(from_stored(found["value"])))
    return count


def _parts(items: Sequence[S]) -> Iterator[Sequence[S]]:
    return (items[start : start + _MOST] for start in range(0, len(items), _MOST))
