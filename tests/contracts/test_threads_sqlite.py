from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from deerflow_replica.testing.threads import Build, ThreadMapContract
from deerflow_replica.threads import SqliteThreadMap


class TestSqliteThreadMap(ThreadMapContract):
    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        return partial(SqliteThreadMap, tmp_path / "below" / "threads.db")
