"""The assistants of a single process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime

from .assistants import (
    AssistantChanges,
    AssistantFilter,
    AssistantOrder,
    AssistantRow,
    Assistants,
    Direction,
    NewAssistant,
    changed,
    matches,
    ordered,
)
from .documents import detached


class InMemoryAssistants(Assistants):
    """Nothing waits, so every method is one transaction. `check_open` raises once the registry is closed."""

    def __init__(self, check_open: Callable[[], None]) -> None:
        self._check_open = check_open
        self._rows: dict[str, AssistantRow] = {}

    async def get(self, assistant_id: str, *, user_id: str | None) -> AssistantRow | None:
        self._check_open()
        row = self._rows.get(assistant_id)
        return row if row is not None and row.user_id == user_id else None

    async def delete(self, assistant_id: str, *, user_id: str | None) -> bool:
        found = await self.get(assistant_id, user_id=user_id)
        if found is not None:
            del self._rows[assistant_id]
        return found is not None

    async def count(self, wanted: AssistantFilter) -> int:
        self._check_open()
        return sum(matches(row, wanted) for row in self._rows.values())

    async def _create(self, assistant: NewAssistant) -> AssistantRow | None:
        self._check_open()
        if assistant.assistant_id in self._rows:
            return None
        now = datetime.now(UTC)
        given = {one.name: getattr(assistant, one.name) for one in fields(assistant)}
        return self._keep(AssistantRow(**given, created_at=now, updated_at=now))

    async def _update(self, assistant_id: str, changes: AssistantChanges, user_id: str | None) -> AssistantRow | None:
        row = await self.get(assistant_id, user_id=user_id)
        return None if row is None else self._keep(replace(changed(row, changes), updated_at=datetime.now(UTC)))

    async def _search(
        self, wanted: AssistantFilter, sort_by: AssistantOrder, sort_order: Direction, limit: int, offset: int
    ) -> Sequence[AssistantRow]:
        self._check_open()
        found = [row for row in self._rows.values() if matches(row, wanted)]
        return ordered(found, sort_by, sort_order)[offset : offset + limit]

    def _keep(self, row: AssistantRow) -> AssistantRow:
        kept = replace(row, config=detached(row.config), context=detached(row.context), metadata=detached(row.metadata))
        self._rows[row.assistant_id] = kept
        return kept
