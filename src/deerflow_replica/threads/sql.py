"""What the SQL backends share: the statements of one table, and rows as parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._drivers.statements import load_statements, quoted
from .paging import Query
from .rules import Row
from .validation import table_name
from .values import SortBy, SortOrder

_BEYOND: tuple[tuple[SortOrder, str, str], ...] = (("desc", "<", "DESC"), ("asc", ">", "ASC"))
_PACKAGE = __name__.rpartition(".")[0]
_SORTS: tuple[SortBy, ...] = ("updated_at", "created_at")


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements by name, the page in each order, and the set-up in its order."""

    by_name: Mapping[str, str]
    pages: Mapping[tuple[SortBy, SortOrder], str]
    set_up: list[str]


def statements_of(file: str, table: str, schema: str | None = None) -> Statements:
    """Load a backend's file for one table; `ValueError` or `ConfigError` for a name that is not plain."""
    plain = table_name(table)
    identifiers = {"table": quoted(schema, plain)} | {
        f"by_{order}": quoted(f"{plain}_by_{order}") for order in ("updated", "created", "expires", "deleted")
    }
    by_name = load_statements(_PACKAGE, file, **identifiers)
    pages: dict[tuple[SortBy, SortOrder], str] = {
        (sort_by, sort_order): load_statements(
            _PACKAGE, file, sort=sort_by, beyond=beyond, direction=direction, **identifiers
        )["page"]
        for sort_by in _SORTS
        for sort_order, beyond, direction in _BEYOND
    }
    return Statements(by_name, pages, [text for name, text in by_name.items() if name.startswith("create_")])


def row_parameters(tenant: str, row: Row) -> dict[str, Any]:
    return {"tenant": tenant, **row._asdict()}


def page_parameters(tenant: str, query: Query) -> dict[str, Any]:
    """Every parameter but `ids`, which each driver passes in its own way."""
    after_value, after_key = query.after
    return {
        "tenant": tenant,
        "user_id": query.user_id,
        "after_value": after_value,
        "after_key": after_key,
        "status": query.filters.status,
        "metadata": query.filters.metadata,
        "limit": query.limit,
        "offset": query.offset,
    }
