"""Disks that take no more, or have changed what they hold: what is stored stays, and is told from what is not."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.errors import MemoryCorruptError, StoreUnavailableError
from deerflow_replica.memory import FileMemoryStorage, MemoryStorage, StoreMemoryStorage
from deerflow_replica.store import SqliteStore

TEA: dict[str, Any] = {"facts": [{"id": "tea", "content": "tea"}]}


@pytest.fixture(params=["files", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryStorage]:
    if request.param == "files":
        yield FileMemoryStorage(tmp_path / "files")
        return
    with SqliteStore(tmp_path / "store.db") as store:
        store.setup()
        yield StoreMemoryStorage(store)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """As if the disk were full: what a file would hold beyond this many bytes is not written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(storage: MemoryStorage, tmp_path: Path) -> None:
    assert storage.save(TEA)
    there = storage.load()
    with no_file_beyond(500_000):
        assert storage.save({**there, "large": "x" * 1_000_000}) is False
        with pytest.raises(StoreUnavailableError):
            storage.apply_changes({"upserts": [{"id": "tea", "content": "x" * 1_000_000}]})
        assert storage.load() == storage.reload() == there
    assert not list(tmp_path.rglob("*.tmp"))
    assert storage.save({**there, "facts": []})
    assert storage.reload()["revision"] == 2


def test_a_damaged_database_is_no_empty_memory(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "store.db") as store:
        store.setup()
        storage = StoreMemoryStorage(store)
        assert storage.save(TEA)
        mine = storage.load()
        assert storage.save({**mine, "facts": []})
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            connection.execute("""UPDATE store_items SET document = replace(document, '"facts"', '"fact')""")
            connection.commit()
        for read in (storage.load, storage.reload):
            with pytest.raises(MemoryCorruptError, match="everyone"):
                read()
        fresh = StoreMemoryStorage(store)  # one that has seen what was there may put it back
        for document in (mine, TEA):
            assert fresh.save(document) is False
