"""Taking over the items of LangGraph's own store in PostgreSQL."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

from . import inputs, labels
from .base import SharedStore
from .values import ImportReport, OnConflict, TakenOver

if TYPE_CHECKING:
    from .langgraph_postgres import LangGraphItem


async def aimport_langgraph_store(
    source_dsn: str,
    store: SharedStore,
    *,
    on_conflict: OnConflict = "skip",
    batch_size: int = 500,
    dry_run: bool = False,
) -> ImportReport:
    """Copy the items of LangGraph's table `store` into a store that is set up, with both stamps and the rest of their
    time to live. Vectors and texts are made anew, of the store's default fields.

    The source is only read, in the order of its keys. An item that is there already is kept (`skip`), replaced
    (`replace`), or replaced if the source's is newer (`newer`): an import that broke off can be run again. `dry_run`
    reads and checks everything, and writes nothing.

    Raises `ConfigError` for a source without that table, and `ValueError`, with its name, for an item that cannot be
    stored; the batches before it are.
    """
    from .langgraph_postgres import langgraph_items

    if on_conflict not in ("skip", "replace", "newer"):
        raise ValueError(f"on_conflict must be skip, replace or newer, not {on_conflict!r}")
    size = inputs.whole_number("batch_size", batch_size, 1)
    read = written = 0
    async for items in langgraph_items(source_dsn, size):
        read += len(items)
        written += await store._take_over([_taken(item) for item in items], None if dry_run else on_conflict)
    return ImportReport(read, written, 0 if dry_run else read - written)


def import_langgraph_store(
    source_dsn: str,
    store: SharedStore,
    *,
    on_conflict: OnConflict = "skip",
    batch_size: int = 500,
    dry_run: bool = False,
) -> ImportReport:
    """`aimport_langgraph_store` for a sync caller."""
    return store._wait(
        aimport_langgraph_store(source_dsn, store, on_conflict=on_conflict, batch_size=batch_size, dry_run=dry_run)
    )


def _taken(item: LangGraphItem) -> TakenOver:
    expires_at = item.expires_at.astimezone(UTC) if item.expires_at is not None else None
    return TakenOver(
        namespace=labels.split(item.prefix),
        key=item.key,
        value=_value(item),
        created_at=item.created_at.astimezone(UTC),
        updated_at=item.updated_at.astimezone(UTC),
        expires_at=expires_at,
        ttl=item.ttl,
    )


def _value(item: LangGraphItem) -> Any:
    """With integers of any size as they are, so that one of more than 64 bits is refused, not rounded."""
    try:
        return json.loads(item.document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{item.prefix!r} {item.key!r} cannot be stored: {error}") from error
