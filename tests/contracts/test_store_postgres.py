from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.store import PostgresStore
from deerflow_replica.testing.store import BuildStore, StoreContract


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def build(self, postgres_dsn: str, postgres_schema: str) -> BuildStore:
        return partial(PostgresStore, postgres_dsn, schema=postgres_schema)
