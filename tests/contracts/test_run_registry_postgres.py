from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.postgres import PostgresRunRegistry
from deerflow_replica.testing.runs import RunRegistryContract


class TestPostgresRunRegistry(RunRegistryContract):
    @pytest.fixture
    async def registry(self, postgres_dsn: str, postgres_schema: str) -> AsyncIterator[RunRegistry]:
        async with PostgresRunRegistry(postgres_dsn, schema=postgres_schema) as registry:
            yield registry

    @pytest.fixture
    async def peer(self, registry: RunRegistry, postgres_dsn: str, postgres_schema: str) -> AsyncIterator[RunRegistry]:
        async with PostgresRunRegistry(postgres_dsn, schema=postgres_schema) as peer:
            yield peer
