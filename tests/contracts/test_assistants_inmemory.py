from __future__ import annotations

import pytest

from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.testing.assistants import AssistantsContract
from deerflow_replica.testing.runs import Build


class TestInMemoryAssistants(AssistantsContract):
    @pytest.fixture
    def build(self) -> Build:
        registry = InMemoryRunRegistry()
        return lambda: registry
