from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.store import MongoStore
from deerflow_replica.testing.store import BuildStore, StoreContract


class TestMongoStore(StoreContract):
    @pytest.fixture
    def build(self, mongo_url: str, mongo_database: str) -> BuildStore:
        return partial(MongoStore, mongo_url, database=mongo_database)
