"""Threads as MongoDB's documents, and how a user's are found.

One document for each thread and tombstone. Metadata stays the text it is: MongoDB's own documents have no place for
some keys, and change numbers.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any

from . import rules
from .filters import metadata_matches
from .paging import Filters, Query
from .rules import Row

Document = dict[str, Any]

PARTS_OF_OWNERS = ("thread_id", "user_id", "live", "expires_at", "status")
_BEYOND = {"desc": "$lt", "asc": "$gt"}


def id_of(tenant: str, thread_id: str) -> str:
    """A tenant's name has no colon."""
    return f"{tenant}:{thread_id}"


def with_ids(tenant: str, thread_ids: Sequence[str]) -> Document:
    """One id is asked for plainly: that is quicker."""
    ids = [id_of(tenant, thread_id) for thread_id in thread_ids]
    return {"_id": ids[0] if len(ids) == 1 else {"$in": ids}}


def document_of(tenant: str, row: Row) -> Document:
    """`live` and not `deleted_at` is what an index begins with: one value, where null would be two."""
    names = {"_id": id_of(tenant, row.thread_id), "tenant": tenant, "live": row.deleted_at is None}
    return names | row._asdict()


def row_of(document: Document) -> Row:
    return Row(*(document[name] for name in Row._fields))


async def rows_of(documents: AsyncIterable[Document]) -> AsyncIterator[Row]:
    async for document in documents:
        yield row_of(document)


def of_user(tenant: str, user_id: str, filters: Filters) -> Document:
    """A user's threads, expired ones too; whoever asks compares the metadata."""
    wanted: Document = {"tenant": tenant, "user_id": user_id, "live": True}
    if filters.status is not None:
        wanted["status"] = filters.status
    if filters.ids is not None:
        wanted["_id"] = {"$in": [id_of(tenant, thread_id) for thread_id in sorted(filters.ids)]}
    return wanted


def unexpired(now: int) -> Document:
    return {"$or": [{"expires_at": None}, {"expires_at": {"$gt": now}}, {"status": rules.BUSY}]}


def lives(part: Document, now: int) -> bool:
    """As the rules have it. Asked here: with more conditions than the ids, some servers look at every document."""
    expires_at = part["expires_at"]
    return part["live"] and (expires_at is None or expires_at > now or part["status"] == rules.BUSY)


def expired(tenant: str, now: int) -> Document:
    return {"tenant": tenant, "live": True, "expires_at": {"$lte": now}, "status": {"$ne": rules.BUSY}}


def beyond(query: Query) -> Document:
    """What comes after the query's place. The first condition, which follows from the others, bounds the index."""
    value, thread_id = query.after
    sign = _BEYOND[query.sort_order]
    return {
        query.sort_by: {f"{sign}e": value},
        "$or": [{query.sort_by: {sign: value}}, {"thread_id": {sign: thread_id}}],
    }


async def matching(documents: AsyncIterable[Document], query: Query) -> list[Row]:
    """The page, out of documents in its order whose metadata nobody has compared yet."""
    rows, left_out = list[Row](), 0
    async for row in rows_of(documents):
        if not metadata_matches(row.metadata, query.filters.metadata):
            continue
        if left_out < query.offset:
            left_out += 1
            continue
        rows.append(row)
        if len(rows) == query.limit:
            break
    return rows
