"""Items taken over into MongoDB, with their own stamps."""

from __future__ import annotations

from collections.abc import Sequence

from .._drivers.mongodb import Collection
from .._extras import extra
from .mongo_documents import Document, id_of
from .mongo_documents import restoring as restoring_one
from .times import to_micros
from .values import OnConflict, Restored

with extra("mongodb"):
    from pymongo import UpdateOne
    from pymongo.errors import BulkWriteError, DuplicateKeyError

_DUPLICATE_KEY = 11000


async def restored(items: Collection, now: int, *, restoring: Sequence[Restored], on_conflict: OnConflict) -> int:
    """How many were written. What is there already is left out first: FerretDB ends a bulk at the first such item."""
    ids = [id_of(item.write.place) for item in restoring]
    there = {found["_id"]: found["updated_at"] async for found in items.find({"_id": {"$in": ids}}, {"updated_at": 1})}
    upserts = [
        restoring_one(item, on_conflict)
        for item, one in zip(restoring, ids, strict=True)
        if one not in there or _replaces(item, there[one], on_conflict)
    ]
    if not upserts:
        return 0
    try:
        done = await items.bulk_write([UpdateOne(*upsert, upsert=True) for upsert in upserts], ordered=False)
    except BulkWriteError as error:  # somebody made one of them meanwhile
        check_duplicates(error)
        return int(error.details["nUpserted"]) + int(error.details["nMatched"])
    except KeyError:  # which FerretDB tells without the counts that pymongo expects
        return sum([await _is_restored(items, upsert) for upsert in upserts])
    return done.upserted_count + done.matched_count


def check_duplicates(error: BulkWriteError) -> None:
    """Raises any other error."""
    if any(one["code"] != _DUPLICATE_KEY for one in error.details["writeErrors"]):
        raise error


async def _is_restored(items: Collection, upsert: tuple[Document, Document]) -> bool:
    try:
        await items.update_one(*upsert, upsert=True)
    except DuplicateKeyError:
        return False
    return True


def _replaces(item: Restored, updated_at: int, on_conflict: OnConflict) -> bool:
    return on_conflict == "replace" or (on_conflict == "newer" and to_micros(item.updated_at) > updated_at)
