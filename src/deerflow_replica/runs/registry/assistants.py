"""Assistants: a graph under a name of its own, with defaults for its runs. Rows beside those of threads and runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal, get_args

from . import rules
from .records import Json

AssistantOrder = Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"]
Direction = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAssistant:
    """An assistant to be stored. `user_id` is its owner, None: nobody. `config`, `context` and `metadata` are defaults
    for its runs.
    """

    assistant_id: str
    graph_id: str
    user_id: str | None = None
    name: str = "Untitled"
    description: str | None = None
    config: Json = field(default_factory=dict)
    context: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantRow(NewAssistant):
    """A stored one. `version` begins at 1 and grows with each change. Times are aware, by the server's clock."""

    version: int = 1
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantChanges:
    """What becomes of a stored assistant: None leaves a field alone, `metadata` is merged (top level)."""

    graph_id: str | None = None
    name: str | None = None
    description: str | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantFilter:
    """Assistants of exactly this owner (None: those of nobody) that have everything given. `name` is part of theirs,
    in whatever case.
    """

    user_id: str | None = None
    graph_id: str | None = None
    name: str | None = None
    metadata: Json = field(default_factory=dict)


class Assistants(ABC):
    """The assistants that were created, on every replica. An owner's are there for that owner alone.

    One transaction per call. A lost server is `StoreUnavailableError`; what cannot be stored is `ValueError`.
    """

    async def create(self, assistant: NewAssistant) -> AssistantRow | None:
        """Store a new one. None: the id is taken, by whomever."""
        check(assistant)
        return await self._create(assistant)

    @abstractmethod
    async def get(self, assistant_id: str, *, user_id: str | None) -> AssistantRow | None: ...

    async def update(self, assistant_id: str, changes: AssistantChanges, *, user_id: str | None) -> AssistantRow | None:
        """The assistant as changed, one version later. None: this owner has none of that id."""
        check(changes)
        return await self._update(assistant_id, changes, user_id)

    @abstractmethod
    async def delete(self, assistant_id: str, *, user_id: str | None) -> bool:
        """False: this owner has none of that id. Its runs stay."""

    async def search(
        self,
        wanted: AssistantFilter,
        *,
        limit: int = 10,
        offset: int = 0,
        sort_by: AssistantOrder = "created_at",
        sort_order: Direction = "desc",
    ) -> tuple[AssistantRow, ...]:
        """Those that match, in an order that leaves no ties: texts by code point, then by id."""
        rules.page(limit, offset)
        rules.known("sort_by", sort_by, get_args(AssistantOrder))
        rules.known("sort_order", sort_order, get_args(Direction))
        return tuple(await self._search(wanted, sort_by, sort_order, limit, offset))

    @abstractmethod
    async def count(self, wanted: AssistantFilter) -> int:
        """How many `search` would find without a limit."""

    @abstractmethod
    async def _create(self, assistant: NewAssistant) -> AssistantRow | None: ...

    @abstractmethod
    async def _update(
        self, assistant_id: str, changes: AssistantChanges, user_id: str | None
    ) -> AssistantRow | None: ...

    @abstractmethod
    async def _search(
        self, wanted: AssistantFilter, sort_by: AssistantOrder, sort_order: Direction, limit: int, offset: int
    ) -> Sequence[AssistantRow]: ...


# The rules, as pure functions


def check(assistant: NewAssistant | AssistantChanges) -> None:
    """Raises `ValueError` for what a database cannot keep."""
    for name in ("assistant_id", "graph_id", "user_id", "name"):
        value = getattr(assistant, name, None)
        if value is not None:
            rules.check_text(name, value)
    if "\0" in (assistant.description or ""):
        raise ValueError("description must not have a NUL")
    rules.check_metadata(assistant.metadata)


def changed(row: AssistantRow, changes: AssistantChanges) -> AssistantRow:
    given = {one.name: getattr(changes, one.name) for one in fields(changes)}
    merged = {**given, "metadata": rules.merged(row.metadata, changes.metadata)}
    return replace(row, version=row.version + 1, **{name: value for name, value in merged.items() if value is not None})


def folded(name: str) -> str:
    """A name as it is searched: the same on every backend, whatever its database thinks of letters."""
    return name.casefold()


def matches(row: AssistantRow, wanted: AssistantFilter) -> bool:
    return (
        row.user_id == wanted.user_id
        and wanted.graph_id in (None, row.graph_id)
        and folded(wanted.name or "") in folded(row.name)
        and rules.contains(row.metadata, wanted.metadata)
    )


def ordered(rows: Sequence[AssistantRow], sort_by: AssistantOrder, sort_order: Direction) -> list[AssistantRow]:
    def key(row: AssistantRow) -> tuple[Any, str]:
        return getattr(row, sort_by), row.assistant_id

    return sorted(rows, key=key, reverse=sort_order == "desc")
