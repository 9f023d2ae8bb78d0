"""Threads in a store of LangGraph's, one item for each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from langgraph.store.base import BaseStore

from deerflow.persistence.thread_meta.base import Record, ThreadMetaStore, UserId
from deerflow.runtime.user_context import AUTO, resolve_user_id

THREADS_NS = ("threads",)


class MemoryThreadMetaStore(ThreadMetaStore):
    """A second `create` of one id replaces the first. Filters go over the record's own fields, not its metadata."""

    def __init__(self, store: BaseStore) -> None:
        self._store = store

    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str | None = None,
        user_id: UserId = AUTO,
        display_name: str | None = None,
        metadata: Record | None = None,
    ) -> Record:
        now = _now()
        record: Record = {
            "thread_id": thread_id,
            "assistant_id": assistant_id,
            "user_id": resolve_user_id(user_id),
            "display_name": display_name,
            "status": "idle",
            "metadata": metadata or {},
            "values": {},
            "created_at": now,
            "updated_at": now,
        }
        await self._store.aput(THREADS_NS, thread_id, record)
        return record

    async def get(self, thread_id: str, *, user_id: UserId = AUTO) -> Record | None:
        owner = resolve_user_id(user_id)
        item = await self._store.aget(THREADS_NS, thread_id)
        if item is None or (owner is not None and item.value.get("user_id") != owner):
            return None
        return dict(item.value)

    async def search(
        self,
        *,
        metadata: Record | None = None,
        status: str | None = None,
        limit: int = 100,
        offset: int = 0,
        user_id: UserId = AUTO,
    ) -> list[Record]:
        wanted = {**(metadata or {}), "status": status, "user_id": resolve_user_id(user_id)}
        asked = {name: value for name, value in wanted.items() if value is not None}
        items = await self._store.asearch(THREADS_NS, filter=asked or None, limit=limit, offset=offset)
        return [dict(item.value) for item in items]

    async def update_display_name(self, thread_id: str, display_name: str, *, user_id: UserId = AUTO) -> None:
        await self._set(thread_id, user_id, display_name=display_name, updated_at=_now())

    async def update_status(self, thread_id: str, status: str, *, user_id: UserId = AUTO) -> None:
        await self._set(thread_id, user_id, status=status, updated_at=_now())

    async def update_metadata(
        self, thread_id: str, metadata: Record, *, touch: bool = True, user_id: UserId = AUTO
    ) -> None:
        record = await self.get(thread_id, user_id=user_id)
        if record is not None:
            times = {"updated_at": _now()} if touch else {}
            await self._set(thread_id, user_id, metadata={**record["metadata"], **metadata}, **times)

    async def update_owner(self, thread_id: str, owner_user_id: str, *, user_id: UserId = AUTO) -> None:
        record = await self.get(thread_id, user_id=user_id)
        if record is not None:
            changed = {**record, "user_id": owner_user_id, "updated_at": _now()}
            await self._store.aput(THREADS_NS, thread_id, changed)

    async def check_access(self, thread_id: str, user_id: str, *, require_existing: bool = False) -> bool:
        record = await self.get(thread_id, user_id=None)
        return not require_existing if record is None else record.get("user_id") in (None, user_id)

    async def delete(self, thread_id: str, *, user_id: UserId = AUTO) -> None:
        if await self.get(thread_id, user_id=user_id) is not None:
            await self._store.adelete(THREADS_NS, thread_id)

    async def _set(self, thread_id: str, owner: UserId, **values: Any) -> None:
        record = await self.get(thread_id, user_id=owner)
        if record is not None:
            await self._store.aput(THREADS_NS, thread_id, {**record, **values})


def _now() -> str:
    return datetime.now(UTC).isoformat()
