"""Which threads a user finds: the thread map says whose they are and in which order, the registry what they hold."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..runs.registry.rules import contains
from .access import row_of, shown_row
from .problems import unprocessable

if TYPE_CHECKING:
    from ..replica import Replica
    from ..runs.registry.base import ThreadOrder
    from ..runs.registry.records import ThreadRow, ThreadStatus
    from ..threads import ThreadRecord
    from ..threads.values import SortBy

Direction = Literal["asc", "desc"]
Found = TypeVar("Found", "ThreadRow", "ThreadRecord")
T = TypeVar("T")

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Filter:
    """What a thread must have. `metadata` and `values` are parts of what is wanted, at any depth; empty: anything."""

    ids: tuple[str, ...] | None
    status: ThreadStatus | None
    metadata: Mapping[str, Any]
    values: Mapping[str, Any]

    @property
    def plain(self) -> dict[str, Any]:
        """What the map can tell of the metadata: it compares the values of top-level keys, whole."""
        return {key: value for key, value in self.metadata.items() if not isinstance(value, (dict, list))}

    @property
    def is_for_the_map(self) -> bool:
        return not self.values and len(self.plain) == len(self.metadata)

    def fits(self, row: ThreadRow) -> bool:
        return contains(row.metadata, self.metadata) and contains(row.values or {}, self.values)


@dataclass(frozen=True, slots=True)
class Cut:
    """Which part of what is found, in which order."""

    sort_by: ThreadOrder
    sort_order: Direction
    limit: int
    offset: int

    def of(self, found: Sequence[Found]) -> Sequence[Found]:
        ordered = sorted(found, key=lambda one: (getattr(one, self.sort_by), one.thread_id), reverse=self.is_down)
        return ordered[self.offset : self.offset + self.limit]

    @property
    def is_down(self) -> bool:
        return self.sort_order == "desc"


async def found_threads(
    replica: Replica, user_id: str | None, wanted: Filter, cut: Cut
) -> tuple[Sequence[ThreadRow], int]:
    """The rows of one page, and how many threads match in all."""
    if user_id is None:
        return await _shared_page(replica, wanted, cut)
    if wanted.is_for_the_map and wanted.ids is None and (cut.sort_by == "created_at" or cut.sort_by == "updated_at"):
        records = await _listed(replica, user_id, wanted, cut.sort_by, cut)
        return await _rows(replica, records), await count_threads(replica, user_id, wanted)
    walked = await _walked(replica, user_id, wanted)
    return await _rows(replica, cut.of(walked)), len(walked)


async def count_threads(replica: Replica, user_id: str | None, wanted: Filter) -> int:
    """How many threads match. Nothing is read of them where the map or the registry can count."""
    if user_id is None:
        return await _shared_count(replica, wanted)
    if wanted.is_for_the_map and wanted.ids is None:
        return await _asked(replica.threads.count(user_id, status=wanted.status, metadata=wanted.metadata))
    return len(await _walked(replica, user_id, wanted))


# A user's own


async def _listed(replica: Replica, user_id: str, wanted: Filter, sort_by: SortBy, cut: Cut) -> Sequence[ThreadRecord]:
    page = await _asked(
        replica.threads.list(
            user_id,
            limit=cut.limit,
            offset=cut.offset,
            sort_by=sort_by,
            sort_order=cut.sort_order,
            status=wanted.status,
            metadata=wanted.metadata,
        )
    )
    return page.items


async def _walked(replica: Replica, user_id: str, wanted: Filter) -> list[ThreadRecord]:
    """All of a user's threads that match, for filters and orders that the map does not have."""
    records: list[ThreadRecord] = []
    cursor, is_first = None, True
    while is_first or cursor is not None:
        page = await _asked(
            replica.threads.list(
                user_id,
                limit=_MOST,
                cursor=cursor,
                sort_by="created_at",
                status=wanted.status,
                metadata=wanted.plain,
                ids=wanted.ids,
            )
        )
        records += page.items if wanted.is_for_the_map else await _fitting(replica, page.items, wanted)
        cursor, is_first = page.next_cursor, False
    return records


async def _fitting(replica: Replica, records: Sequence[ThreadRecord], wanted: Filter) -> list[ThreadRecord]:
    rows = await _rows(replica, records)
    return [record for record, row in zip(records, rows, strict=True) if wanted.fits(row)]


async def _rows(replica: Replica, records: Sequence[ThreadRecord]) -> list[ThreadRow]:
    """What the user sees of each."""
    ids = [record.thread_id for record in records]
    rows = {row.thread_id: row for row in await replica.runs.get_threads(ids)}
    return [shown_row(rows.get(record.thread_id), record) or row_of(record) for record in records]


async def _asked(question: Awaitable[T]) -> T:
    """What the map's filters cannot be, such as too large, is the client's mistake."""
    try:
        return await question
    except ValueError as error:
        raise unprocessable(str(error)) from error


# Nobody's, for a gateway that asks nobody who they are


async def _shared_page(replica: Replica, wanted: Filter, cut: Cut) -> tuple[Sequence[ThreadRow], int]:
    if wanted.values:
        rows = await _shared_with_values(replica, wanted)
        return cut.of(rows), len(rows)
    return await _shared(replica, wanted, cut), await _shared_count(replica, wanted)


async def _shared_count(replica: Replica, wanted: Filter) -> int:
    if wanted.values:
        return len(await _shared_with_values(replica, wanted))
    return await replica.runs.count_threads(
        ids=wanted.ids, unowned=True, status=wanted.status, metadata=wanted.metadata
    )


async def _shared_with_values(replica: Replica, wanted: Filter) -> list[ThreadRow]:
    total = await replica.runs.count_threads(unowned=True)
    pages = [await _shared(replica, wanted, cut) for cut in _cuts(total)]
    return [row for page in pages for row in page if wanted.fits(row)]


def _cuts(total: int) -> Iterator[Cut]:
    return (Cut("thread_id", "asc", _MOST, offset) for offset in range(0, total, _MOST))


async def _shared(replica: Replica, wanted: Filter, cut: Cut) -> Sequence[ThreadRow]:
    rows = await replica.runs.search_threads(
        ids=wanted.ids,
        unowned=True,
        status=wanted.status,
        metadata=wanted.metadata,
        limit=cut.limit,
        offset=cut.offset,
        sort_by=cut.sort_by,
        sort_order=cut.sort_order,
    )
    owners = await replica.threads.owners_of([row.thread_id for row in rows])
    return [row for row in rows if owners.get(row.thread_id) is None]
