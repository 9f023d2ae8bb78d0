from __future__ import annotations

from pathlib import Path

import pytest

from deerflow_replica.runs.registry.sqlite import SqliteRunRegistry
from deerflow_replica.testing.assistants import AssistantsContract
from deerflow_replica.testing.runs import Build


class TestSqliteAssistants(AssistantsContract):
    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        return lambda: SqliteRunRegistry(tmp_path / "runs.db")
