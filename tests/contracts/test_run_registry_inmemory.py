from __future__ import annotations

import pytest

from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.testing.runs import Build, RunRegistryContract


class TestInMemoryRunRegistry(RunRegistryContract):
    @pytest.fixture
    def build(self) -> Build:
        registry = InMemoryRunRegistry()
        return lambda: registry
