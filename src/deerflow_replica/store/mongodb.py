"""The store in MongoDB."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

from langgraph.store.base import TTLConfig

from .._drivers.mongodb import Client, Collection, Document, MongoServer, collection_of
from .._extras import extra
from ..errors import ConfigError, StoreUnavailableError
from . import labels, listing
from .backend import Backend
from .base import SharedStore
from .filters import AllOf, holds
from .mongo_clock import ServerClock
from .mongo_values import from_stored, prefilter, to_stored
from .times import from_micros, to_micros
from .values import Conflict, Count, Get, ListNamespaces, OnConflict, Place, Read, Restored, Row, Search, Write, Written

with extra("mongodb"):
    import orjson
    from bson.timestamp import Timestamp
    from pymongo import ReturnDocument, UpdateOne
    from pymongo.errors import BulkWriteError, DuplicateKeyError

T = TypeVar("T")

_SCHEMA_VERSION = 1
_MOST_IDS = 1000  # in one command, which holds 16 MiB
_DUPLICATE_KEY = 11000
_SWEEP_LEASE = 60_000_000  # microseconds after which a sweeper that died is not waited for
_NEW_VERSION = {"version": {"$type": "timestamp"}}  # the server's own, which it never gives twice
_NEW = {"version": {"$exists": False}}  # in an upsert: what is there already is a duplicate key


class MongoStore(SharedStore):
    """LangGraph's `BaseStore` in a collection of MongoDB, for any number of replicas.

    `conn` is a URL, or a client that is left open and used on its own loop. Puts of one call are applied in order, not
    all or none. A `query` is ignored: there is no vector search here.
    """

    _max_document_bytes = 15 * 2**20

    def __init__(
        self,
        conn: str | Client,
        *,
        database: str = "deerflow",
        collection: str = "store",
        timeout_seconds: float = 10.0,
        ttl: TTLConfig | None = None,
    ) -> None:
        self._client = None if isinstance(conn, str) else conn
        url = conn if isinstance(conn, str) else None
        self._server = MongoServer(url, max_size=MongoBackend.slots + 1, timeout_seconds=timeout_seconds)
        self._names = (database, collection)
        super().__init__("store", ttl=ttl, is_borrowed=self._client is not None)

    @classmethod
    def from_conn_string(cls, conn: str, **options: Any) -> Self:
        return cls(conn, **options)

    def _new_backend(self) -> Backend:
        return MongoBackend(self._server, self._client, *self._names)


class MongoBackend(Backend):
    """One document for each item: `_id` is the labels and the key, in the order in which items are listed.

    Every document is changed in one step of the server's; nothing here needs a transaction.
    """

    slots = 4

    def __init__(self, server: MongoServer, client: Client | None, database: str, collection: str) -> None:
        self._server = server
        self._borrowed = client
        self._client = client
        self._database = database
        self._collection = collection
        self._clock = ServerClock()
        self._is_set_up = False

    async def open(self) -> None:
        if self._client is None:
            self._client = await self._server.connect()

    async def close(self) -> None:
        if self._client is not None and self._borrowed is None:
            client, self._client = self._client, None
            await client.close()

    async def set_up(self, *, create_schema: bool) -> None:
        async def work(client: Client) -> None:
            about = self._about(client)
            if await self._schema(about) == _SCHEMA_VERSION:
                return
            items = self._items(client)
            await items.create_index([("updated_at", -1), ("_id", 1)], name="by_update")
            await items.create_index([("namespace", 1)], name="by_namespace")
            await items.create_index([("expires_at", 1)], name="by_expiry")
            await about.update_one({"_id": "schema"}, {"$set": {"number": _SCHEMA_VERSION}}, upsert=True)

        await self._server.run(self._opened(), work)

    async def run(self, reads: Sequence[Read], writes: Sequence[Write], *, live: bool) -> list[Any]:
        async def work(items: Collection, now: int) -> list[Any]:
            answers = await _Reader(items, now, live=live).answers(reads)
            await _apply(items, writes, now, live=live)
            return answers

        return await self._asked(work)

    async def write_if(self, write: Write, *, live: bool) -> Written | Conflict:
        async def work(items: Collection, now: int) -> Written | Conflict:
            conditional = _Conditional(items, write, now, live=live)
            while True:
                outcome = await conditional.outcome()
                if outcome != Conflict(write.if_version or 0):  # else it went while we looked what it was
                    return outcome

        return await self._asked(work, retry=False)

    async def touch(self, places: Sequence[Place]) -> None:
        async def work(items: Collection, now: int) -> None:
            for some in _in_parts([_id_of(place) for place in places]):
                alive = {"_id": {"$in": some}, "expires_at": {"$gt": now}}
                for ttl in await items.distinct("ttl", alive):
                    await items.update_many(alive | {"ttl": ttl}, {"$set": {"expires_at": now + ttl}})

        await self._asked(work)

    async def delete_namespace(self, prefix: str, *, live: bool) -> int:
        async def work(items: Collection, now: int) -> int:
            deleted = await items.delete_many(_below(prefix) | _alive(now, live=live))
            if live:
                await items.delete_many(_below(prefix))
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
            expired = {"expires_at": {"$lte": now}}
            ids = [found["_id"] async for found in items.find(expired, {"_id": 1}).limit(limit)]
            deleted = await items.delete_many(expired | {"_id": {"$in": ids}})
            await about.update_one({"_id": "sweep"} | mine, {"$set": {"until": 0}})
            return deleted.deleted_count

        return await self._asked(work)

    async def restore(self, items: Sequence[Restored], *, on_conflict: OnConflict) -> int:
        requests = [_restoring(item, on_conflict) for item in items]

        async def work(collection: Collection, now: int) -> int:
            try:
                done = await collection.bulk_write(requests, ordered=False)
            except BulkWriteError as error:
                if any(one["code"] != _DUPLICATE_KEY for one in error.details["writeErrors"]):
                    raise
                return int(error.details["nUpserted"]) + int(error.details["nMatched"])
            return done.upserted_count + done.matched_count

        return await self._asked(work, retry=False)

    async def _asked(self, work: Callable[[Collection, int], Awaitable[T]], *, retry: bool = True) -> T:
        async def asked(client: Client) -> T:
            if not self._is_set_up:
                await self._check_set_up(client)
            return await work(self._items(client), await self._clock.now(client))

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

    def _items(self, client: Client) -> Collection:
        return collection_of(client, self._database, self._collection)

    def _about(self, client: Client) -> Collection:
        return collection_of(client, self._database, f"{self._collection}.about")


class _Reader:
    """Answers, as of one moment."""

    def __init__(self, items: Collection, now: int, *, live: bool) -> None:
        self._items = items
        self._alive = _alive(now, live=live)

    async def answers(self, reads: Sequence[Read]) -> list[Any]:
        got = await self._got([_id_of(read.place) for read in reads if isinstance(read, Get)])
        scans = [self._scan(read) for read in reads if not isinstance(read, Get)]
        scanned = iter(await asyncio.gather(*scans))
        return [got.get(_id_of(read.place)) if isinstance(read, Get) else next(scanned) for read in reads]

    async def _got(self, ids: Sequence[str]) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for some in _in_parts(ids):
            async for found in self._items.find({"_id": {"$in": some}} | self._alive):
                rows[found["_id"]] = _row(found)
        return rows

    async def _scan(self, read: Search | Count | ListNamespaces) -> Any:
        match read:
            case Search():
                return await self._searched(read)
            case Count(prefix, condition):
                return await self._counted(prefix, condition)
            case ListNamespaces():
                below = _below(listing.first_labels(read)) | self._alive
                return listing.page(await self._items.distinct("namespace", below), read)

    async def _searched(self, search: Search) -> list[Row]:
        if not search.limit:
            return []
        cursor = self._items.find(self._wanted(search.prefix, search.condition))
        cursor = cursor.sort([("updated_at", -1), ("_id", 1)])
        if not search.condition.conditions:
            page = cursor.skip(search.offset).limit(search.limit)
            return [_row(found) async for found in page]
        rows: list[Row] = []
        left_out = 0
        async with cursor:
            async for found in cursor:
                if not holds(search.condition, orjson.loads(from_stored(found["value"]))):
                    continue
                if left_out < search.offset:
                    left_out += 1
                    continue
                rows.append(_row(found))
                if len(rows) == search.limit:
                    break
        return rows

    async def _counted(self, prefix: str, condition: AllOf) -> int:
        wanted = self._wanted(prefix, condition)
        if not condition.conditions:
            return await self._items.count_documents(wanted)
        values = [found["value"] async for found in self._items.find(wanted, {"value": 1})]
        return sum(holds(condition, orjson.loads(from_stored(value))) for value in values)

    def _wanted(self, prefix: str, condition: AllOf) -> Document:
        return _below(prefix) | self._alive | prefilter(condition)


class _Conditional:
    """One write over the version that is expected."""

    def __init__(self, items: Collection, write: Write, now: int, *, live: bool) -> None:
        self._items = items
        self._write = write
        self._now = now
        self._place = {"_id": _id_of(write.place)}
        self._alive = _alive(now, live=live)
        self._live = live

    async def outcome(self) -> Written | Conflict:
        done = await (self._deleted() if self._write.document is None else self._put())
        if done is not None:
            return done
        found = await self._items.find_one(self._place | self._alive, {"version": 1})
        return Conflict(0 if found is None else _number(found["version"]))

    async def _deleted(self) -> Written | None:
        if not self._write.if_version:
            return None if await self._items.find_one(self._place | self._alive, {"_id": 1}) else Written(0)
        deleted = await self._items.delete_one(self._expected())
        return Written(0) if deleted.deleted_count else None

    async def _put(self) -> Written | None:
        if not self._write.if_version and self._live:
            await self._items.delete_one(self._place | _expired(self._now))
        try:
            found = await self._items.find_one_and_update(
                self._expected(),
                _putting(self._write, self._now),
                upsert=not self._write.if_version,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            return None
        if found is None:
            return None
        return Written(_number(found["version"]), from_micros(found["created_at"]), from_micros(found["updated_at"]))

    def _expected(self) -> Document:
        if not self._write.if_version:
            return self._place | _NEW
        return self._place | self._alive | {"version": _timestamp(self._write.if_version)}


async def _apply(items: Collection, writes: Sequence[Write], now: int, *, live: bool) -> None:
    deleted = [_id_of(write.place) for write in writes if write.document is None]
    put = [write for write in writes if write.document is not None]
    for some in _in_parts(deleted):
        await items.delete_many({"_id": {"$in": some}})
    if live:
        for some in _in_parts([_id_of(write.place) for write in put]):
            await items.delete_many({"_id": {"$in": some}} | _expired(now))
    if put:
        await items.bulk_write(
            [UpdateOne({"_id": _id_of(write.place)}, _putting(write, now), upsert=True) for write in put]
        )


def _putting(write: Write, now: int) -> Document:
    ttl = {} if write.ttl is None else {"ttl": write.ttl, "expires_at": now + write.ttl}
    update: Document = {
        "$set": _content(write),
        "$max": {"updated_at": now},
        "$currentDate": _NEW_VERSION,
        "$setOnInsert": {"created_at": now},
    }
    if write.keeps_ttl:
        update["$setOnInsert"] |= ttl
    elif ttl:
        update["$set"] |= ttl
    else:
        update["$unset"] = {"ttl": "", "expires_at": ""}
    return update


def _restoring(item: Restored, on_conflict: OnConflict) -> UpdateOne:
    stamps = {"created_at": to_micros(item.created_at), "updated_at": to_micros(item.updated_at)}
    expiry: Document = {}
    if item.expires_at is not None:
        expiry = {"ttl": item.write.ttl, "expires_at": to_micros(item.expires_at)}
    older: Document = {"skip": _NEW, "newer": {"updated_at": {"$lt": stamps["updated_at"]}}, "replace": {}}
    update = {"$set": _content(item.write) | stamps | expiry, "$currentDate": _NEW_VERSION}
    if not expiry:
        update["$unset"] = {"ttl": "", "expires_at": ""}
    return UpdateOne({"_id": _id_of(item.write.place)} | older[on_conflict], update, upsert=True)


def _content(write: Write) -> Document:
    return {
        "namespace": write.place.namespace,
        "key": write.place.key,
        "value": to_stored(write.document or b""),
    }


def _row(found: Document) -> Row:
    return Row(
        found["namespace"],
        found["key"],
        from_stored(found["value"]),
        _number(found["version"]),
        from_micros(found["created_at"]),
        from_micros(found["updated_at"]),
        "ttl" in found,
    )


def _id_of(place: Place) -> str:
    """U+0000 ends each label, and once more the namespace: so ids are ordered as tuples of labels, then keys, are."""
    return f"{_start(place.namespace)}\0{place.key}"


def _start(namespace: str) -> str:
    return "".join(f"{label}\0" for label in labels.split(namespace))


def _below(prefix: str) -> Document:
    start = _start(prefix)
    return {"_id": {"$gte": start, "$lt": f"{start[:-1]}\1"}} if start else {}


def _alive(now: int, *, live: bool) -> Document:
    return {"expires_at": {"$not": {"$lte": now}}} if live else {}


def _expired(now: int) -> Document:
    return {"expires_at": {"$lte": now}}


def _in_parts(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _MOST_IDS] for start in range(0, len(ids), _MOST_IDS))


def _number(version: Timestamp) -> int:
    return version.time << 32 | version.inc


def _timestamp(version: int) -> Timestamp:
    return Timestamp(version >> 32, version & 0xFFFFFFFF)
