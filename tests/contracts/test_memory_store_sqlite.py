from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from deerflow_replica.memory import StoreMemoryStorage
from deerflow_replica.store.sqlite import SqliteStore
from deerflow_replica.testing.memory import Build, MemoryStorageContract


class TestStoreMemoryStorageOnSqlite(MemoryStorageContract):
    @pytest.fixture
    def build(self, tmp_path: Path) -> Iterator[Build]:
        with SqliteStore(tmp_path / "store.db") as store:
            store.setup()
            yield partial(StoreMemoryStorage, store)
