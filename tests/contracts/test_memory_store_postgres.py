from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from functools import partial

import psycopg
import pytest

from deerflow_replica.store import SharedStore
from deerflow_replica.store.postgres import PostgresStore
from deerflow_replica.testing.memory import Build, MemoryStorageContract
from memory.replicas import on_each_in_turn, two_stores


@pytest.fixture(scope="module")
def stores(postgres_dsn: str) -> Iterator[Sequence[SharedStore]]:
    schema = f"test_{uuid.uuid4().hex[:12]}"
    with two_stores(partial(PostgresStore, postgres_dsn, schema=schema)) as stores:
        yield stores
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


class TestStoreMemoryStorageOnPostgres(MemoryStorageContract):
    @pytest.fixture
    def build(self, stores: Sequence[SharedStore]) -> Build:
        return on_each_in_turn(stores)
