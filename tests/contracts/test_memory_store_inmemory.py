"""LangGraph's own store: no versions, so one process only."""

from __future__ import annotations

from functools import partial

import pytest
from langgraph.store.memory import InMemoryStore

from deerflow_replica.memory import StoreMemoryStorage
from deerflow_replica.testing.memory import Build, MemoryStorageContract


class TestStoreMemoryStorageInMemory(MemoryStorageContract):
    @pytest.fixture
    def build(self) -> Build:
        return partial(StoreMemoryStorage, InMemoryStore())
