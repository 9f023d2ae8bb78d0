from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.testing.threads import Build, ThreadMapContract
from deerflow_replica.threads import MongoThreadMap


class TestMongoThreadMap(ThreadMapContract):
    @pytest.fixture
    def build(self, mongo_url: str, mongo_database: str) -> Build:
        return partial(MongoThreadMap, mongo_url, database=mongo_database)
