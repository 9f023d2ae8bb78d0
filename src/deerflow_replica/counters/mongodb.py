"""Model counters in MongoDB."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from .._drivers.mongo_clock import ServerClock
from .._drivers.mongodb import Client, Collection, MongoDatabase, check_names, collection_of, refusals
from .._extras import extra
from ._circuit import Circuit, StoredCircuit, circuit_of
from ._counts import Counts, add
from ._fleet import (
    ABANDONED_SECONDS,
    BASE,
    FOLDED_KEPT_SECONDS,
    StoredRow,
    Vote,
    dump,
    restored,
    storable,
    unfolded,
    vote_counts,
)
from ._ledger import BUCKET_SECONDS, Row, Snapshot, oldest_bucket
from .base import ModelCounters

with extra("mongodb"):
    from pymongo import UpdateOne
    from pymongo.errors import BulkWriteError, DuplicateKeyError

T = TypeVar("T")

_DUPLICATE_KEY = 11000
_ROWS_AT_ONCE = 1000
_MOST_DEAD_SECONDS = 1e9
_MICROS = 1_000_000


_Write = tuple[dict[str, Any], dict[str, Any]]
"""Which document, and the change."""


class _Base(NamedTuple):
    """What was folded of one model: the sum, and for each boot id what of it is in the sum, and since when."""

    version: int
    sums: Counts
    folded: dict[str, tuple[Counts, float]]


_NO_BASE = _Base(0, {}, {})


class MongoModelCounters(ModelCounters):
    """Counters in MongoDB, shared by every replica. The clock is the server's.

    Pass a `uri`, or a `client`, which is borrowed and never closed. Votes go into the collection `{collection}_votes`,
    the models' circuits into `{collection}_circuits`, and what compaction made of dead replicas into
    `{collection}_folded`. Each change is of one document, so a standalone server will do.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        client: Client | None = None,
        database: str = "deerflow",
        collection: str = "model_usage_stats",
        _database: MongoDatabase | None = None,
        _clock: ServerClock | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_names(database, collection)
        self._names = database, collection
        self._clock = _clock or ServerClock()
        self._database = _database or MongoDatabase(uri, client=client)
        self._runner = self._database.runner

    async def _open(self) -> None:
        await self._database.open()
        try:
            await self._asked(self._create_indexes)
        except BaseException:
            await self._database.close()
            raise

    async def _shut(self) -> None:
        await self._database.close()

    async def _create_indexes(self, client: Client) -> None:
        await self._rows(client).create_index([("bucket", 1), ("written_at", 1)], name="by_bucket")
        await self._part(client, "votes").create_index([("model_name", 1), ("voted_at", 1)], name="by_model")

    async def _write(self, snapshot: Snapshot) -> None:
        async def work(client: Client) -> None:
            now = await self._clock.now(client)
            writes = [self._writing(row, snapshot.number, now) for row in snapshot.rows]
            for start in range(0, len(writes), _ROWS_AT_ONCE):
                await _over_lower_numbers(self._rows(client), writes[start : start + _ROWS_AT_ONCE])
            oldest = {"boot_id": storable(self._boot_id), "bucket": {"$gt": 0, "$lt": oldest_bucket(time.time())}}
            await self._rows(client).delete_many(oldest)

        await self._asked(work)

    async def _read_rows(self, first_bucket: int, last_bucket: int) -> list[StoredRow]:
        """Of what was folded first: a row that is folded meanwhile is in one of both, and never in both."""
        span = {"$gte": first_bucket, "$lte": last_bucket}

        async def work(client: Client) -> list[StoredRow]:
            bases = await self._bases(client) if first_bucket == 0 else {}
            rows = [row async for row in _rows_of(self._rows(client).find({"bucket": span}))]
            sums = [StoredRow(BASE, name, base.sums) for name, base in bases.items() if base.sums]
            return [*sums, *(_with_folded(row, bases) for row in rows)]

        return await self._asked(work)

    async def _read_votes(self) -> list[StoredRow]:
        group = {
            "$group": {
                "_id": {"model_name": "$model_name", "sentiment": "$sentiment"},
                "votes": {"$sum": 1},
            }
        }

        async def work(client: Client) -> list[StoredRow]:
            votes = self._part(client, "votes")
            groups = [one async for one in await votes.aggregate([group])]
            return [_votes(one, await _last_vote(votes, one["_id"]["model_name"])) for one in groups]

        return await self._asked(work)

    async def _vote(self, vote: Vote) -> bool:
        async def work(client: Client) -> bool:
            votes = self._part(client, "votes")
            if vote.sentiment is None:
                return (await votes.delete_one({"_id": vote.key})).deleted_count > 0
            choice = {"model_name": storable(vote.model_name), "sentiment": vote.sentiment}
            ids = {"thread_id": vote.thread_id, "run_id": vote.run_id, "user_id": vote.user_id}
            document = {
                **{name: storable(value) for name, value in ids.items()},
                **choice,
                "voted_at": await self._clock.now(client),
            }
            another = {"_id": vote.key, "$or": [{name: {"$ne": value}} for name, value in choice.items()]}
            try:
                await votes.update_one(another, {"$set": document}, upsert=True)
            except DuplicateKeyError:  # it is there, and no other one
                return False
            return True

        return await self._asked(work)

    async def _fold(self, dead_after_seconds: float) -> int:
        async def work(client: Client) -> int:
            now = await self._clock.now(client)
            last = now - int(min(dead_after_seconds, _MOST_DEAD_SECONDS) * _MICROS)
            dead: dict[str, list[StoredRow]] = {}
            async for row in _rows_of(self._rows(client).find({"bucket": 0, "written_at": {"$lte": last}})):
                dead.setdefault(row.model_name, []).append(row)
            folded = [await self._fold_model(client, name, rows, now / _MICROS) for name, rows in dead.items()]
            await self._drop_old(client, now)
            return sum(folded)

        return await self._asked(work, retry=False)  # run twice, it would not count what the first time folded

    async def _fold_model(self, client: Client, name: str, rows: list[StoredRow], now: float) -> int:
        while True:
            base = (await self._bases(client, {"_id": storable(name)})).get(name, _NO_BASE)
            new = [row for row in rows if _part_of(base, row) != row.counts]
            if not new:
                return 0
            sums, folded = dict(base.sums), dict(base.folded)
            for row in new:
                add(sums, unfolded(StoredRow(row.boot_id, name, row.counts, _part_of(base, row))))
                folded[row.boot_id] = row.counts, now
            if await self._swap_base(client, name, _Base(base.version, sums, folded)):
                return len(new)

    async def _drop_old(self, client: Client, now: int) -> None:
        """The rows first: what is folded of a row that is gone is never asked for."""
        abandoned = int(time.time() - ABANDONED_SECONDS) // BUCKET_SECONDS
        await self._rows(client).delete_many({"bucket": {"$gt": 0, "$lt": abandoned}})
        forgotten = now / _MICROS - FOLDED_KEPT_SECONDS
        for name, base in (await self._bases(client)).items():
            old = {boot_id for boot_id, (_, folded_at) in base.folded.items() if folded_at < forgotten}
            for boot_id in old:
                unwritten = {"$lt": int(forgotten * _MICROS)}
                await self._rows(client).delete_one({"_id": _id(0, boot_id, name), "written_at": unwritten})
            here = {row.boot_id async for row in _rows_of(self._rows(client).find({"bucket": 0}))} if old else set()
            if gone := old - here:
                kept = {boot_id: part for boot_id, part in base.folded.items() if boot_id not in gone}
                await self._swap_base(client, name, _Base(base.version, base.sums, kept))

    async def _bases(self, client: Client, which: dict[str, Any] | None = None) -> dict[str, _Base]:
        found = self._part(client, "folded").find(which or {})
        return {
            restored(one["_id"]): _Base(one["version"], json.loads(one["sums"]), json.loads(one["folded"]))
            async for one in found
        }

    async def _swap_base(self, client: Client, name: str, base: _Base) -> bool:
        document = {"sums": dump(base.sums), "folded": json.dumps(base.folded)}
        return await _swapped(self._part(client, "folded"), storable(name), base.version, document)

    async def _read_circuits(self) -> tuple[float, dict[str, StoredCircuit]]:
        async def work(client: Client) -> tuple[float, dict[str, StoredCircuit]]:
            found = self._part(client, "circuits").find({})
            circuits = {
                restored(one["_id"]): StoredCircuit(one["version"], circuit_of(one["circuit"])) async for one in found
            }
            return await self._clock.now(client) / _MICROS, circuits

        return await self._asked(work)

    async def _swap_circuit(self, model_name: str, version: int, circuit: Circuit) -> bool:
        async def work(client: Client) -> bool:
            circuits = self._part(client, "circuits")
            return await _swapped(circuits, storable(model_name), version, {"circuit": circuit.dump()})

        return await self._asked(work)

    def _writing(self, row: Row, number: int, now: int) -> _Write:
        key = {"_id": _id(row.bucket, self._boot_id, row.model_name), "number": {"$lt": number}}
        values = {
            "bucket": row.bucket,
            "boot_id": storable(self._boot_id),
            "model_name": storable(row.model_name),
            "number": number,
            "counts": dump(row.counts),
            "written_at": now,
        }
        return key, {"$set": values}

    def _rows(self, client: Client) -> Collection:
        return collection_of(client, *self._names)

    def _part(self, client: Client, part: str) -> Collection:
        database, collection = self._names
        return collection_of(client, database, f"{collection}_{part}")

    async def _asked(self, work: Callable[[Client], Awaitable[T]], *, retry: bool = True) -> T:
        with refusals():
            return await self._database.execute(work, retry=retry)


async def _over_lower_numbers(rows: Collection, writes: list[_Write]) -> None:
    """A row that has a higher number is not found, and not made a second time: its id is taken."""
    try:
        await rows.bulk_write([UpdateOne(key, change, upsert=True) for key, change in writes], ordered=False)
    except BulkWriteError as error:
        if any(one["code"] != _DUPLICATE_KEY for one in error.details["writeErrors"]):
            raise
    except KeyError:  # FerretDB's answer to a taken id lacks a field that pymongo counts on, and it did not go on
        for key, change in writes:
            with suppress(DuplicateKeyError):
                await rows.update_one(key, change, upsert=True)


async def _swapped(collection: Collection, name: str, version: int, document: dict[str, Any]) -> bool:
    """Write the document as version + 1 if its version is `version` (0: there is none)."""
    changed = {**document, "version": version + 1}
    if version:
        return (await collection.update_one({"_id": name, "version": version}, {"$set": changed})).matched_count > 0
    try:
        await collection.insert_one({"_id": name, **changed})
    except DuplicateKeyError:
        return False
    return True


async def _rows_of(found: Any) -> AsyncIterator[StoredRow]:
    async for one in found:
        yield StoredRow(restored(one["boot_id"]), restored(one["model_name"]), json.loads(one["counts"]))


def _with_folded(row: StoredRow, bases: dict[str, _Base]) -> StoredRow:
    base = bases.get(row.model_name, _NO_BASE)
    return StoredRow(row.boot_id, row.model_name, row.counts, _part_of(base, row))


def _part_of(base: _Base, row: StoredRow) -> Counts:
    return base.folded.get(row.boot_id, ({}, 0.0))[0]


async def _last_vote(votes: Collection, name: str) -> float:
    last = await votes.find({"model_name": name}, {"voted_at": 1}).sort("voted_at", -1).limit(1).to_list()
    return float(last[0]["voted_at"]) / _MICROS if last else 0.0


def _votes(group: dict[str, Any], voted_at: float) -> StoredRow:
    votes, is_positive = group["votes"], group["_id"]["sentiment"] > 0
    counts = vote_counts(votes if is_positive else 0, 0 if is_positive else votes, voted_at)
    return StoredRow(BASE, restored(group["_id"]["model_name"]), counts)


def _id(bucket: int, boot_id: str, model_name: str) -> str:
    return json.dumps([bucket, boot_id, model_name])
