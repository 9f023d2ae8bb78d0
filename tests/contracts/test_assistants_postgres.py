from __future__ import annotations

import pytest

from deerflow_replica.runs.registry.postgres import PostgresRunRegistry
from deerflow_replica.testing.assistants import AssistantsContract
from deerflow_replica.testing.runs import Build


class TestPostgresAssistants(AssistantsContract):
    @pytest.fixture
    def build(self, postgres_dsn: str, postgres_schema: str) -> Build:
        return lambda: PostgresRunRegistry(postgres_dsn, schema=postgres_schema)
