from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from deerflow_replica.memory import FileMemoryStorage
from deerflow_replica.testing.memory import Build, MemoryStorageContract


class TestFileMemoryStorage(MemoryStorageContract):
    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        return partial(FileMemoryStorage, tmp_path)
