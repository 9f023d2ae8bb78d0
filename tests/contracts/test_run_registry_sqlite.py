from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.sqlite import SqliteRunRegistry
from deerflow_replica.testing.runs import RunRegistryContract


class TestSqliteRunRegistry(RunRegistryContract):
    @pytest.fixture
    async def registry(self, tmp_path: Path) -> AsyncIterator[RunRegistry]:
        async with SqliteRunRegistry(tmp_path / "runs.db") as registry:
            yield registry

    @pytest.fixture
    async def peer(self, registry: RunRegistry, tmp_path: Path) -> AsyncIterator[RunRegistry]:
        async with SqliteRunRegistry(tmp_path / "runs.db") as registry:
            yield registry
