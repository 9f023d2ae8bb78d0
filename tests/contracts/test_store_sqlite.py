from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from deerflow_replica.store import SqliteStore
from deerflow_replica.testing.store import BuildStore, StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def build(self, tmp_path: Path) -> BuildStore:
        return partial(SqliteStore, tmp_path / "store.db")
