"""LangGraph's own store: no versions, so one process only."""

from __future__ import annotations

import pytest
from langgraph.store.memory import InMemoryStore

from deerflow_replica.memory import StoreMemoryStorage
from deerflow_replica.testing.memory import MemoryStorageContract


class TestStoreMemoryStorageInMemory(MemoryStorageContract):
    @pytest.fixture
    def store(self) -> InMemoryStore:
        return InMemoryStore()

    @pytest.fixture
    def storage(self, store: InMemoryStore) -> StoreMemoryStorage:
        return StoreMemoryStorage(store)

    @pytest.fixture
    def other(self, store: InMemoryStore) -> StoreMemoryStorage:
        return StoreMemoryStorage(store)
