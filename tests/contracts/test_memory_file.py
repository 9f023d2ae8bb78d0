from __future__ import annotations

from pathlib import Path

import pytest

from deerflow_replica.memory import FileMemoryStorage
from deerflow_replica.testing.memory import MemoryStorageContract


class TestFileMemoryStorage(MemoryStorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> FileMemoryStorage:
        return FileMemoryStorage(tmp_path)

    @pytest.fixture
    def other(self, tmp_path: Path) -> FileMemoryStorage:
        return FileMemoryStorage(tmp_path)
