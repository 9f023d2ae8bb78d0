from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from deerflow_replica.counters import SqliteModelCounters
from deerflow_replica.testing.counters import Build
from deerflow_replica.testing.counters_shared import SharedModelCountersContract


class TestSqliteModelCounters(SharedModelCountersContract):
    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        return partial(SqliteModelCounters, tmp_path / "counters.db")
