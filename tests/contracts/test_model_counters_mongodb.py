from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.counters import MongoModelCounters
from deerflow_replica.testing.counters import Build
from deerflow_replica.testing.counters_shared import SharedModelCountersContract


class TestMongoModelCounters(SharedModelCountersContract):
    @pytest.fixture
    def build(self, mongo_url: str, mongo_database: str) -> Build:
        return partial(MongoModelCounters, mongo_url, database=mongo_database)
