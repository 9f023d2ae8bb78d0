"""Items as MongoDB's documents: where they are, how they are found, and what changes them.

One document for each item. Its `_id` is the labels and the key, in the order in which items are listed; its version is
a stamp of the server's, which gives none twice and a later one with every write.
"""

from __future__ import annotations

from typing import Any

from .._extras import extra
from . import labels
from .mongo_values import from_stored, to_stored
from .times import from_micros, to_micros
from .values import OnConflict, Place, Restored, Row, Write, Written

with extra("mongodb"):
    from bson.timestamp import Timestamp

Document = dict[str, Any]

_NEW_VERSION = {"version": {"$type": "timestamp"}}
_NO_EXPIRY = {"ttl": "", "expires_at": ""}
ABSENT: Document = {"version": {"$exists": False}}
"""In the filter of an upsert: then a document that is there is a duplicate key."""


def id_of(place: Place) -> str:
    """U+0000 ends each label, and once more the namespace: so ids are ordered as tuples of labels, then keys, are."""
    return f"{_start(place.namespace)}\0{place.key}"


def below(prefix: str) -> Document:
    """What is at or below a namespace."""
    start = _start(prefix)
    return {"_id": {"$gte": start, "$lt": f"{start[:-1]}\1"}} if start else {}


def alive(now: int, *, live: bool) -> Document:
    """What is there: when `live` only what has not expired."""
    return {"expires_at": {"$not": {"$lte": now}}} if live else {}


def expired(now: int) -> Document:
    return {"expires_at": {"$lte": now}}


def of_version(version: int) -> Document:
    return {"version": Timestamp(version >> 32, version & 0xFFFFFFFF)}


def version_of(found: Document | None) -> int:
    """0 where nothing was found."""
    return 0 if found is None else found["version"].time << 32 | found["version"].inc


def row_of(found: Document) -> Row:
    stamps = from_micros(found["created_at"]), from_micros(found["updated_at"])
    document = from_stored(found["value"])
    return Row(found["namespace"], found["key"], document, version_of(found), *stamps, "ttl" in found)


def written_of(found: Document) -> Written:
    return Written(version_of(found), from_micros(found["created_at"]), from_micros(found["updated_at"]))


def putting(write: Write, now: int) -> Document:
    """The update that puts; as an upsert."""
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
        update["$unset"] = _NO_EXPIRY
    return update


def restoring(item: Restored, on_conflict: OnConflict) -> tuple[Document, Document]:
    """Filter and update of an upsert; a document that is to be left alone is a duplicate key."""
    stamps = {"created_at": to_micros(item.created_at), "updated_at": to_micros(item.updated_at)}
    update: Document = {"$set": _content(item.write) | stamps, "$currentDate": _NEW_VERSION}
    if item.expires_at is None:
        update["$unset"] = _NO_EXPIRY
    else:
        update["$set"] |= {"ttl": item.write.ttl, "expires_at": to_micros(item.expires_at)}
    replaced: dict[OnConflict, Document] = {
        "skip": ABSENT,
        "newer": {"updated_at": {"$lt": stamps["updated_at"]}},
        "replace": {},
    }
    return {"_id": id_of(item.write.place)} | replaced[on_conflict], update


def _content(write: Write) -> Document:
    return {
        "namespace": write.place.namespace,
        "key": write.place.key,
        "value": to_stored(write.document or b""),
    }


def _start(namespace: str) -> str:
    return "".join(f"{label}\0" for label in labels.split(namespace))
