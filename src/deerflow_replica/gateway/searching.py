"""Which threads a user finds: the thread map says whose they are, the registry what they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .access import row_of

if TYPE_CHECKING:
    from ..replica import Replica
    from ..runs.registry.base import ThreadOrder
    from ..runs.registry.records import ThreadRow, ThreadStatus

Order = Literal["asc", "desc"]
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Filter:
    """What a thread must have; empty: nothing."""

    ids: tuple[str, ...] | None
    status: ThreadStatus | None
    metadata: Mapping[str, Any]

    @property
    def is_empty(self) -> bool:
        return self.ids is None and self.status is None and not self.metadata


class Search(ABC):
    @abstractmethod
    async def count(self) -> int: ...

    @abstractmethod
    async def page(
        self, *, sort_by: ThreadOrder, sort_order: Order, limit: int, offset: int
    ) -> Sequence[ThreadRow]: ...


class OwnThreads(Search):
    """Everything of one user, newest or oldest first, straight from the map."""

    def __init__(self, replica: Replica, user_id: str) -> None:
        self._replica = replica
        self._user_id = user_id

    async def count(self) -> int:
        return await self._replica.threads.count(self._user_id)

    async def page(self, *, sort_by: ThreadOrder, sort_order: Order, limit: int, offset: int) -> Sequence[ThreadRow]:
        if sort_by != "created_at":
            everything = await _chosen(self._replica, self._user_id, Filter(None, None, {}))
            return await everything.page(sort_by=sort_by, sort_order=sort_order, limit=limit, offset=offset)
        records = await self._replica.threads.list(
            self._user_id, limit=limit, offset=offset, sort_by="created_at", sort_order=sort_order
        )
        ids = [record.thread_id for record in records.items]
        rows = {row.thread_id: row for row in await _rows(self._replica, ids)}
        return [rows.get(record.thread_id) or row_of(record) for record in records.items]


class ChosenThreads(Search):
    """Threads of a known set, by the registry's filters and orders."""

    def __init__(self, replica: Replica, ids: Sequence[str], wanted: Filter) -> None:
        self._registry = replica.runs
        self._ids = ids
        self._wanted = wanted

    async def count(self) -> int:
        wanted = self._wanted
        return await self._registry.count_threads(ids=self._ids, status=wanted.status, metadata=wanted.metadata)

    async def page(self, *, sort_by: ThreadOrder, sort_order: Order, limit: int, offset: int) -> Sequence[ThreadRow]:
        return await self._registry.search_threads(
            ids=self._ids,
            status=self._wanted.status,
            metadata=self._wanted.metadata,
            limit=limit,
            offset=offset,
            sort_by=sort_by,
            sort_order=sort_order,
        )


class SharedThreads(Search):
    """Threads without an owner, for a gateway that asks nobody who they are."""

    def __init__(self, replica: Replica, wanted: Filter) -> None:
        self._replica = replica
        self._wanted = wanted

    async def count(self) -> int:
        wanted = self._wanted
        return await self._replica.runs.count_threads(
            ids=wanted.ids, unowned=True, status=wanted.status, metadata=wanted.metadata
        )

    async def page(self, *, sort_by: ThreadOrder, sort_order: Order, limit: int, offset: int) -> Sequence[ThreadRow]:
        rows = await self._replica.runs.search_threads(
            ids=self._wanted.ids,
            unowned=True,
            status=self._wanted.status,
            metadata=self._wanted.metadata,
            limit=limit,
            offset=offset,
            sort_by=sort_by,
            sort_order=sort_order,
        )
        owners = await self._replica.threads.owners_of([row.thread_id for row in rows])
        return [row for row in rows if owners.get(row.thread_id) is None]


async def search_of(replica: Replica, user_id: str | None, wanted: Filter) -> Search:
    if user_id is None:
        return SharedThreads(replica, wanted)
    if wanted.is_empty:
        return OwnThreads(replica, user_id)
    return await _chosen(replica, user_id, wanted)


async def _chosen(replica: Replica, user_id: str, wanted: Filter) -> ChosenThreads:
    """The user's own among the wanted ids, or all of them."""
    if wanted.ids is not None:
        owners = await replica.threads.owners_of(wanted.ids)
        return ChosenThreads(replica, [key for key in wanted.ids if owners.get(key) == user_id], wanted)
    return ChosenThreads(replica, await _all_ids(replica, user_id), wanted)


async def _all_ids(replica: Replica, user_id: str) -> list[str]:
    page = await replica.threads.list(user_id, limit=_MOST, sort_by="created_at")
    ids = [record.thread_id for record in page.items]
    while page.next_cursor is not None:
        page = await replica.threads.list(user_id, limit=_MOST, sort_by="created_at", cursor=page.next_cursor)
        ids += [record.thread_id for record in page.items]
    return ids


async def _rows(replica: Replica, ids: Sequence[str]) -> Sequence[ThreadRow]:
    return await replica.runs.search_threads(ids=ids, limit=_MOST) if ids else ()
