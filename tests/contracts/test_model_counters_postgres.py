from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.counters import PostgresModelCounters
from deerflow_replica.testing.counters import Build
from deerflow_replica.testing.counters_shared import SharedModelCountersContract


class TestPostgresModelCounters(SharedModelCountersContract):
    @pytest.fixture
    def build(self, postgres_dsn: str, postgres_schema: str) -> Build:
        return partial(PostgresModelCounters, postgres_dsn, schema=postgres_schema)
