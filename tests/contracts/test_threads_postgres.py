from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.testing.threads import Build, ThreadMapContract
from deerflow_replica.threads import PostgresThreadMap


class TestPostgresThreadMap(ThreadMapContract):
    @pytest.fixture
    def build(self, postgres_dsn: str, postgres_schema: str) -> Build:
        return partial(PostgresThreadMap, postgres_dsn, schema=postgres_schema)
