from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from deerflow_replica.store.mongodb import MongoStore
from deerflow_replica.testing.memory import Build, MemoryStorageContract
from memory.replicas import on_each_in_turn, two_stores


class TestStoreMemoryStorageOnMongodb(MemoryStorageContract):
    @pytest.fixture
    def build(self, mongo_url: str, mongo_database: str) -> Iterator[Build]:
        """In a database for each test: what stands in for MongoDB here looks at every document of a collection."""
        with two_stores(partial(MongoStore, mongo_url, database=mongo_database)) as stores:
            yield on_each_in_turn(stores)
