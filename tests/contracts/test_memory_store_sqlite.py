from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from deerflow_replica.store import SharedStore
from deerflow_replica.store.sqlite import SqliteStore
from deerflow_replica.testing.memory import Build, MemoryStorageContract
from memory.replicas import on_each_in_turn, two_stores


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[SharedStore]]:
    with two_stores(partial(SqliteStore, tmp_path_factory.mktemp("memory") / "store.db")) as stores:
        yield stores


class TestStoreMemoryStorageOnSqlite(MemoryStorageContract):
    @pytest.fixture
    def build(self, stores: Sequence[SharedStore]) -> Build:
        return on_each_in_turn(stores)
