"""One store object on several event loops, one after the other, and in a forked child."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from deerflow_replica.store import PostgresStore, SharedStore, SqliteStore

PLACE = (("a",), "k")


@pytest.fixture(params=["sqlite", "postgres"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SharedStore]:
    if request.param == "sqlite":
        return partial(SqliteStore, tmp_path / "store.db")
    dsn, schema = request.getfixturevalue("postgres_dsn"), request.getfixturevalue("postgres_schema")
    return partial(PostgresStore, dsn, schema=schema)


async def one_more(store: SharedStore) -> int:
    item = await store.aupdate(*PLACE, lambda value: {"n": (value or {"n": 0})["n"] + 1})
    assert item is not None
    return int(item.value["n"])


def test_one_loop_after_the_other(build: Callable[[], SharedStore]) -> None:
    """Without closing in between."""
    store = build()
    store.setup()
    assert [asyncio.run(one_more(store)) for _ in range(3)] == [1, 2, 3]
    assert store.count() == 1
    store.close()


def test_a_forked_child_begins_anew(build: Callable[[], SharedStore]) -> None:
    store = build()
    store.setup()
    store.put(*PLACE, {"n": 1})
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if store.get(*PLACE) is not None and asyncio.run(one_more(store)) == 2 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    item = store.get(*PLACE)
    assert item is not None
    assert item.value == {"n": 2}
    store.close()
