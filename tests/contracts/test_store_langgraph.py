from __future__ import annotations

import pytest
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore

from deerflow_replica.testing.store import PlainStoreContract


class TestInMemoryStore(PlainStoreContract):
    @pytest.fixture
    async def store(self) -> BaseStore:
        return InMemoryStore()
