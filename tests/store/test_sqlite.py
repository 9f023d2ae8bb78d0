"""What only the store in an SQLite file has to get right."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from deerflow_replica._drivers.databases import Databases
from deerflow_replica.config import AppConfig
from deerflow_replica.errors import ConfigError, StoreUnavailableError
from deerflow_replica.store import SqliteStore, open_store
from deerflow_replica.store.embedding import VectorIndexConfig
from store.replicas import check_nothing_is_lost, write_together
from threads_left import NewThreads

pytestmark = pytest.mark.anyio

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folders" / "store.db"


async def test_items_outlive_the_store(new_threads: NewThreads, path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.asetup()
        await store.aput(("a",), "k", {"x": 1})
    async with SqliteStore.from_conn_string(f"sqlite:///{path}") as store:
        item = await store.aget(("a",), "k")
        assert item is not None
        assert item.value == {"x": 1}
    assert not new_threads("deerflow-replica")


async def test_in_memory_each_has_its_own_from_every_loop() -> None:
    async with SqliteStore(":memory:") as store, SqliteStore(":memory:") as other:
        await asyncio.to_thread(store.setup)
        await asyncio.to_thread(store.put, ("a",), "k", {"x": 1})
        await other.asetup()
        assert await store.acount() == 1
        assert await other.acount() == 0


def test_a_store_is_used_by_one_loop_after_the_other(new_threads: NewThreads, path: Path) -> None:
    store = SqliteStore(path)
    store.setup()
    for number in range(3):
        asyncio.run(store.aput(("a",), str(number), {}))
    assert asyncio.run(store.acount()) == 3
    store.close()
    assert not new_threads("deerflow-replica")


async def test_what_is_not_set_up_says_so(path: Path) -> None:
    async with SqliteStore(path) as store:
        with pytest.raises(ConfigError, match=r"call setup\(\)"):
            await store.aget(("a",), "k")
        with pytest.raises(ConfigError, match=r"call setup\(\)"):
            await store.aput(("a",), "k", {})


async def test_what_a_newer_version_wrote_is_left_alone(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.asetup()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE store_about SET number = 99 WHERE name = 'schema'")
            connection.execute("DROP TABLE store_item_vectors")
        connection.close()
        with pytest.raises(ConfigError, match="newer version"):
            await store.asetup()
    with sqlite3.connect(path) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'store_item_vectors'").fetchall()
    connection.close()


async def test_langgraphs_own_tables_may_be_in_the_file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE store (prefix TEXT, key TEXT)")
        connection.execute("CREATE TABLE store_vectors (prefix TEXT)")
    connection.close()
    async with SqliteStore(path) as store:
        await store.asetup()
        await store.aput(("a",), "k", {})
        assert await store.acount() == 1


async def test_processes_set_up_together_and_lose_nothing(path: Path) -> None:
    await write_together("SqliteStore", path=str(path))
    async with SqliteStore(path) as store:
        await check_nothing_is_lost(store)


def _use_after_fork(store: SqliteStore, results: Any) -> None:
    store.put(("a",), "child", {})
    results.put(store.count())
    store.close()


def test_a_forked_child_opens_the_file_anew(path: Path) -> None:
    with SqliteStore(path) as store:
        store.setup()
        store.put(("a",), "parent", {})
        results = FORK.SimpleQueue()
        child = FORK.Process(target=_use_after_fork, args=(store, results))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert results.get() == 2
        assert store.count() == 2


def test_a_forked_child_leaves_what_it_did_not_open(path: Path) -> None:
    with SqliteStore(path) as store:
        store.setup()
        child = FORK.Process(target=store.close)
        child.start()
        child.join()
        assert child.exitcode == 0
        store.put(("a",), "k", {})
        assert store.count() == 1


async def test_a_file_that_another_process_holds_is_an_error_in_time(path: Path) -> None:
    async with SqliteStore(path, busy_timeout_seconds=0.1) as store:
        await store.asetup()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await store.aput(("a",), "k", {})
        assert await store.aget(("a",), "k") is None
        other.execute("ROLLBACK")
        other.close()
        await store.aput(("a",), "k", {})
        assert await store.acount() == 1


async def test_what_is_no_database_is_an_error(new_threads: NewThreads, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, and long enough to be looked at " * 10)
    store = SqliteStore(tmp_path / "text.db")
    with pytest.raises(StoreUnavailableError, match="not a database"):
        await store.asetup()
    await store.aclose()
    assert not new_threads("deerflow-replica")


async def test_a_put_with_a_clock_set_back_is_no_older_than_its_item(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.asetup()
        await store.aput(("a",), "k", {"x": 1})
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE store_items SET created_at = created_at + 3600000000, updated_at = created_at")
        connection.close()
        await store.aput(("a",), "k", {"x": 2})
        item = await store.aget(("a",), "k")
        assert item is not None
        assert item.updated_at == item.created_at
        assert item.value == {"x": 2}


@pytest.mark.parametrize("text", ['"quoted"', "ü\U0001f600", "back\\slash", "\n\x01", "%_", '"}'])
async def test_the_look_before_the_filter_loses_nothing(text: str) -> None:
    """An equality is looked for in the JSON text before the filter is asked."""
    async with SqliteStore(":memory:") as store:
        await store.asetup()
        await store.aput(("a",), "k", {text: text, "flag": True})
        await store.aput(("a",), "l", {"inner": {text: text, "flag": True}})
        for filter in ({text: text}, {text: {"$eq": text}, "flag": True}, {"$and": [{"flag": {"$eq": True}}]}):
            assert [item.key for item in await store.asearch((), filter=filter)] == ["k"], filter
            assert await store.acount((), filter=filter) == 1


def _embed(texts: Sequence[str]) -> list[list[float]]:
    """On the unit circle, by the number that the text is."""
    return [[math.cos(float(text)), math.sin(float(text))] for text in texts]


def _index(distance: Any = "cosine", dims: int = 2) -> VectorIndexConfig:
    return {"dims": dims, "embed": _embed, "fields": ["at"], "distance_type": distance}


@pytest.mark.parametrize(
    ("distance", "near", "far"),
    [
        ("cosine", math.cos(0.5), math.cos(2)),
        ("inner_product", math.cos(0.5), math.cos(2)),
        ("l2", -2 * math.sin(0.25), -2 * math.sin(1)),
    ],
)
async def test_scores(distance: Any, near: float, far: float) -> None:
    async with SqliteStore(":memory:", index=_index(distance)) as store:
        await store.asetup()
        await store.aput(("a",), "far", {"at": "2"})
        await store.aput(("a",), "near", {"at": "0.5"})
        found = await store.asearch(("a",), query="0")
        assert [item.key for item in found] == ["near", "far"]
        assert [item.score for item in found] == pytest.approx([near, far], abs=1e-6)


async def test_vectors_of_other_dimensions_are_refused(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.asetup()
        await store.aput(("a",), "before", {"at": "1"})
    async with SqliteStore(path, index=_index()) as store:
        await store.asetup()
        await store.aput(("a",), "k", {"at": "1"})
        assert [item.key for item in await store.asearch((), query="1")] == ["k", "before"]
    async with SqliteStore(path, index=_index(dims=3)) as store:
        with pytest.raises(ConfigError, match=r"index\.dims is 3, but .* have 2"):
            await store.asetup()


async def test_vectors_go_with_their_item(path: Path) -> None:
    async with SqliteStore(path, index=_index()) as store:
        await store.asetup()
        for key in "abc":
            await store.aput((key,), key, {"at": "1"})
        await store.aput(("a",), "a", {"at": "2"}, index=False)
        await store.adelete(("b",), "b")
        await store.adelete_namespace(("c",))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM store_item_vectors").fetchone() == (0,)
    connection.close()


async def test_long_pages_are_read_without_sorting_documents(path: Path) -> None:
    """A plan is looked at, as time says little about a few rows."""
    async with SqliteStore(path) as store:
        await store.asetup()
        plans: list[str] = []
        engine = store._engines.here()
        assert engine is not None
        sql: dict[str, str] = engine.backend._sql  # type: ignore[attr-defined]  # this store's own backend

        def plan(connection: sqlite3.Connection) -> None:
            for name in ("page", "count", "get", "sweep", "namespaces"):
                asked = dict.fromkeys(("prefix", "live", "now", "text", "is_filtered", "limit", "offset"), 0)
                parameters = asked | {"prefix": "a", "namespace": "a", "key": "k"}
                rows = connection.execute(f"EXPLAIN QUERY PLAN {sql[name]}", parameters)
                plans.extend(f"{name}: {row[3]}" for row in rows)

        await store._file.database.read(plan)
        assert not [step for step in plans if "SCAN store_items" in step], plans
        assert [step for step in plans if step.startswith("page: SEARCH store_items USING INDEX")], plans


async def test_parts_of_a_replica_share_the_connection(new_threads: NewThreads, path: Path) -> None:
    databases = Databases()
    config = AppConfig.from_mapping({"store": {"type": "sqlite", "connection_string": str(path)}})
    async with open_store(config, databases=databases) as store:
        database = databases.sqlite(str(path))
        await database.open()
        await store.aput(("a",), "k", {"x": 1})
        found = await database.read(
            lambda connection: connection.execute("SELECT document FROM store_items").fetchall()
        )
        assert [orjson.loads(document) for (document,) in found] == [{"x": 1}]
        await database.close()
    assert not new_threads("deerflow-replica")


async def test_text_search_is_a_mistake_in_the_configuration(path: Path) -> None:
    section = {"type": "sqlite", "connection_string": str(path), "text_index": {"fields": ["$"]}}
    config = AppConfig.from_mapping({"store": section})
    with pytest.raises(ConfigError, match=r"store\.text_index: a store of type sqlite has none"):
        async with open_store(config):
            pass


async def test_expired_items_are_not_found_in_a_configured_store(path: Path) -> None:
    config = AppConfig.from_mapping({"store": {"type": "sqlite", "connection_string": str(path)}})
    async with open_store(config) as store:
        await store.aput(("a",), "k", {"x": 1}, ttl=1)
        assert await store.aget(("a",), "k") is not None
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE store_items SET expires_at = 1")
        connection.close()
        assert await store.aget(("a",), "k") is None
        assert await store.asearch(()) == []
        assert await store.alist_namespaces() == []
