"""The assistants in a database, written once for those of the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from .assistants import (
    AssistantChanges,
    AssistantFilter,
    AssistantOrder,
    AssistantRow,
    Assistants,
    Direction,
    NewAssistant,
    changed,
    folded,
)
from .documents import to_json
from .rows import Row, Steps, T, document, time_of

ASSISTANTS = "deerflow_replica_assistants"
SET_UP = ("create_assistants", "create_assistants_by_user")

_DOCUMENTS = ("config", "context", "metadata")


class Transaction(Protocol):
    """How a backend runs the statements that `steps()` yields. `retry`: it may safely run twice."""

    async def __call__(self, steps: Callable[[], Steps[T]], *, retry: bool = True) -> T: ...


class SqlAssistants(Assistants):
    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def get(self, assistant_id: str, *, user_id: str | None) -> AssistantRow | None:
        return await self._transaction(lambda: _found("get_assistant", assistant_id, user_id))

    async def delete(self, assistant_id: str, *, user_id: str | None) -> bool:
        mine = {"assistant_id": assistant_id, "user_id": user_id}
        return bool(await self._transaction(lambda: _rows("delete_assistant", mine), retry=False))

    async def count(self, wanted: AssistantFilter) -> int:
        [row] = await self._transaction(lambda: _rows("count_assistants", _wanted(wanted)))
        return int(row["found"])

    async def _create(self, assistant: NewAssistant) -> AssistantRow | None:
        rows = await self._transaction(lambda: _rows("insert_assistant", _values(assistant)), retry=False)
        return _assistant(rows[0]) if rows else None

    async def _update(self, assistant_id: str, changes: AssistantChanges, user_id: str | None) -> AssistantRow | None:
        return await self._transaction(lambda: _update(assistant_id, changes, user_id), retry=False)

    async def _search(
        self, wanted: AssistantFilter, sort_by: AssistantOrder, sort_order: Direction, limit: int, offset: int
    ) -> Sequence[AssistantRow]:
        page = {"order": f"{sort_by}_{sort_order}", "limit": limit, "offset": offset}
        rows = await self._transaction(lambda: _rows("search_assistants", {**_wanted(wanted), **page}))
        return [_assistant(row) for row in rows]


def _rows(statement: str, values: dict[str, Any]) -> Steps[list[Row]]:
    return (yield statement, values)


def _found(statement: str, assistant_id: str, user_id: str | None) -> Steps[AssistantRow | None]:
    rows = yield statement, {"assistant_id": assistant_id, "user_id": user_id}
    return _assistant(rows[0]) if rows else None


def _update(assistant_id: str, changes: AssistantChanges, user_id: str | None) -> Steps[AssistantRow | None]:
    row = yield from _found("lock_assistant", assistant_id, user_id)
    if row is None:
        return None
    rows = yield "update_assistant", _values(changed(row, changes))
    return _assistant(rows[0])


def _wanted(wanted: AssistantFilter) -> dict[str, Any]:
    return {**asdict(wanted), "name": folded(wanted.name or ""), "metadata": to_json(wanted.metadata)}


def _values(assistant: NewAssistant) -> dict[str, Any]:
    texts = {name: to_json(getattr(assistant, name)) for name in _DOCUMENTS}
    return {**asdict(assistant), "name_folded": folded(assistant.name), **texts}


def _assistant(row: Row) -> AssistantRow:
    return AssistantRow(
        assistant_id=row["assistant_id"],
        graph_id=row["graph_id"],
        user_id=row["user_id"],
        name=row["name"],
        description=row["description"],
        config=document(row["config"]),
        context=document(row["context"]),
        metadata=document(row["metadata"]),
        version=row["version"],
        created_at=time_of(row["created_at"]),
        updated_at=time_of(row["updated_at"]),
    )
