"""A disk that takes no more: what is stored stays, and is told from what is not."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.errors import StoreUnavailableError
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
