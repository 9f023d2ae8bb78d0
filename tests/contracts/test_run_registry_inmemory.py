from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deerflow_replica.runs.registry.base import RunRegistry
from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.testing.runs import RunRegistryContract


class TestInMemoryRunRegistry(RunRegistryContract):
    @pytest.fixture
    async def registry(self) -> AsyncIterator[RunRegistry]:
        async with InMemoryRunRegistry() as registry:
            yield registry
