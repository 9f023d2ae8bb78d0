"""`deerflow-replica migrate store`: the items of LangGraph's own store, taken over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ..config.targets import masked, target_of
from ..errors import ConfigError, ReplicaError, StoreUnavailableError
from .reading import ConfigPath, ExtensionsPath, read_config, say

if TYPE_CHECKING:
    from pathlib import Path

    from ..config import AppConfig
    from ..store import ImportReport, SharedStore

_AGAIN = "Bring it back, or name another one with {named_by}. An import that broke off can be run again."


class OnConflict(StrEnum):
    """What becomes of an item that is there already."""

    SKIP = "skip"
    REPLACE = "replace"
    NEWER = "newer"


def migrate_store(
    source: Annotated[str, typer.Option("--from", metavar="DSN", help="PostgreSQL with LangGraph's table `store`.")],
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="postgresql://, sqlite:/// or mongodb://; else the config's."),
    ] = None,
    on_conflict: Annotated[OnConflict, typer.Option(help="An item that is there already.")] = OnConflict.SKIP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check, take over no item.")] = False,
    config: ConfigPath = None,
    extensions: ExtensionsPath = None,
) -> None:
    """Copy the items of LangGraph's own PostgreSQL store; one that broke off can be run again. 1 if it fails."""
    try:
        report = asyncio.run(_taken_over(source, target, on_conflict, dry_run, config, extensions))
    except (ReplicaError, ValueError) as error:
        for line in str(error).splitlines():
            typer.echo(line, err=True)
        raise typer.Exit(1) from None
    say(f"read {report.read}, written {report.written}, skipped {report.skipped}")


async def _taken_over(
    source: str,
    target: str | None,
    on_conflict: OnConflict,
    dry_run: bool,
    config: Path | None,
    extensions: Path | None,
) -> ImportReport:
    from ..store import SharedStore, aimport_langgraph_store, open_store

    loaded = None if target is not None else read_config(config, extensions)
    place, named_by = (target or "", "--to") if loaded is None else _configured(loaded)
    async with AsyncExitStack() as stack:
        with _told_apart(place, named_by):
            opening = _store_at(place) if loaded is None else open_store(loaded)
            store = await stack.enter_async_context(opening)
            if not isinstance(store, SharedStore):
                raise ConfigError("store.type: a store in memory keeps nothing that is imported; say --to")
            await store.asetup()
            return await aimport_langgraph_store(source, store, on_conflict=on_conflict.value, dry_run=dry_run)


def _configured(config: AppConfig) -> tuple[str, str]:
    """Where the configured store is, and the key that says so."""
    target = target_of(config, "store")
    return target.url, target.key


@contextmanager
def _told_apart(target: str, named_by: str) -> Iterator[None]:
    """Which of the two databases is away, and what to do about it."""
    from ..store.langgraph_postgres import SourceUnavailableError

    try:
        yield
    except SourceUnavailableError as error:
        raise StoreUnavailableError(f"{error}\n{_AGAIN.format(named_by='--from')}") from error
    except StoreUnavailableError as error:
        told = f"the target {masked(target)} cannot be written: {error}"
        raise StoreUnavailableError(f"{told}\n{_AGAIN.format(named_by=named_by)}") from error


def _store_at(url: str) -> SharedStore:
    from .. import store

    if url.startswith(("postgresql://", "postgres://")):
        return store.PostgresStore(url)
    if url.startswith(("mongodb://", "mongodb+srv://")):
        return store.MongoStore(url)
    if url.startswith("sqlite:///"):
        return store.SqliteStore.from_conn_string(url)
    raise ConfigError(f"--to: {masked(url)} is no postgresql://, sqlite:/// or mongodb:// URL")
