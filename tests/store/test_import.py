"""Taking over the items of LangGraph's own store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.store.postgres import PostgresStore as LangGraphStore
from psycopg.conninfo import make_conninfo

from deerflow_replica.errors import ConfigError, StoreUnavailableError
from deerflow_replica.store import (
    ImportReport,
    PostgresStore,
    SharedStore,
    SqliteStore,
    aimport_langgraph_store,
    import_langgraph_store,
)
from deerflow_replica.store.langgraph_postgres import langgraph_items

pytestmark = pytest.mark.anyio

VALUES: dict[str, dict[str, Any]] = {"one": {"n": 1}, "two": {"f": 1.5, "t": "é"}, "three": {"deep": [{"x": None}]}}


@pytest.fixture
def source(postgres_dsn: str, postgres_schema: str) -> str:
    """A database with LangGraph's tables, and a few items in them."""
    dsn = make_conninfo(postgres_dsn, options=f"-csearch_path={postgres_schema}")
    with LangGraphStore.from_conn_string(dsn) as theirs:
        theirs.setup()
        for key, value in VALUES.items():
            theirs.put(("users", "ann"), key, value)
        theirs.put(("docs",), "k", {"n": 2}, ttl=60)
    return dsn


@pytest.fixture
def store(postgres_dsn: str, postgres_schema: str) -> SharedStore:
    return PostgresStore(postgres_dsn, schema=postgres_schema)


async def test_items_come_with_their_stamps(source: str, store: SharedStore, tmp_path: Path) -> None:
    with LangGraphStore.from_conn_string(source) as theirs:
        expected = {item.key: item for item in theirs.search(("users",))}
    for target in (store, SqliteStore(tmp_path / "store.db")):
        async with target:
            await target.asetup()
            report = await aimport_langgraph_store(source, target, batch_size=3)
            assert report == ImportReport(read=4, written=4, skipped=0)
            assert await target.alist_namespaces() == [("docs",), ("users", "ann")]
            for item in await target.asearch(("users",)):
                theirs_item = expected[item.key]
                assert item.value == VALUES[item.key]
                assert (item.created_at, item.updated_at) == (theirs_item.created_at, theirs_item.updated_at)


async def test_what_is_there_is_kept_replaced_or_compared(source: str, store: SharedStore) -> None:
    async with store:
        await store.asetup()
        await store.aput(("users", "ann"), "one", {"ours": True})
        assert await aimport_langgraph_store(source, store) == ImportReport(4, 3, 1)
        assert await aimport_langgraph_store(source, store) == ImportReport(4, 0, 4)
        await store.aput(("users", "ann"), "two", {"ours": True})
        assert await aimport_langgraph_store(source, store, on_conflict="newer") == ImportReport(4, 0, 4)
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("UPDATE store SET updated_at = now() + interval '1 hour' WHERE key = 'two'")
        assert await aimport_langgraph_store(source, store, on_conflict="newer") == ImportReport(4, 1, 3)
        item = await store.aget(("users", "ann"), "two")
        assert item is not None
        assert item.value == VALUES["two"]
        assert await aimport_langgraph_store(source, store, on_conflict="replace") == ImportReport(4, 4, 0)
        item = await store.aget(("users", "ann"), "one")
        assert item is not None
        assert item.value == VALUES["one"]
        with pytest.raises(ValueError, match="on_conflict"):
            await aimport_langgraph_store(source, store, on_conflict="merge")  # type: ignore[arg-type]  # that is the point


async def test_what_is_left_of_the_time_to_live(source: str, store: SharedStore) -> None:
    """Also of what LangGraph's whole minutes cannot hold."""
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("UPDATE store SET expires_at = now() - interval '1 minute' WHERE key = 'one'")
        connection.execute(
            "UPDATE store SET expires_at = now() + interval '20 seconds', ttl_minutes = 0 WHERE key = 'two'"
        )
    store.ttl_config["omit_expired"] = True
    async with store:
        await store.asetup()
        assert await aimport_langgraph_store(source, store) == ImportReport(4, 4, 0)
        assert await store.aget(("users", "ann"), "one") is None
        assert await store.asweep_ttl() == 1
        assert await store.acount() == 3
    with psycopg.connect(source) as connection:
        rows = connection.execute("SELECT key, ttl, expires_at FROM store_items ORDER BY key").fetchall()
    left = {key: (ttl, expires_at) for key, ttl, expires_at in rows}
    assert left["three"] == (None, None)
    assert left["k"][0] == timedelta(hours=1)
    assert timedelta(0) < left["two"][0] < timedelta(minutes=1)
    assert left["two"][1] - datetime.now(UTC) < timedelta(seconds=21)


async def test_a_dry_run_checks_and_writes_nothing(source: str, store: SharedStore) -> None:
    async with store:
        await store.asetup()
        assert await aimport_langgraph_store(source, store, dry_run=True) == ImportReport(4, 0, 0)
        assert await store.acount() == 0
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("INSERT INTO store (prefix, key, value) VALUES ('a..b', 'bad', '{}')")
        for dry_run in (True, False):
            with pytest.raises(ValueError, match="bad"):
                await aimport_langgraph_store(source, store, dry_run=dry_run)


@pytest.mark.parametrize("number", ["123456789012345678901", "1e400", "1e5000"])
async def test_a_number_that_would_be_rounded_is_refused(source: str, store: SharedStore, number: str) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("INSERT INTO store (prefix, key, value) VALUES ('a', 'large', %s)", [f'{{"n": {number}}}'])
    async with store:
        await store.asetup()
        with pytest.raises(ValueError, match="large"):
            await aimport_langgraph_store(source, store)
        assert await store.aget(("a",), "large") is None


async def test_items_without_stamps(source: str, store: SharedStore) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("UPDATE store SET created_at = NULL WHERE key = 'one'")
        connection.execute("UPDATE store SET created_at = NULL, updated_at = NULL WHERE key = 'two'")
    async with store:
        await store.asetup()
        assert await aimport_langgraph_store(source, store) == ImportReport(4, 4, 0)
        one, two = await store.aget(("users", "ann"), "one"), await store.aget(("users", "ann"), "two")
        assert one is not None
        assert two is not None
        assert one.created_at == one.updated_at <= two.created_at == two.updated_at


async def test_a_source_of_another_kind(source: str, store: SharedStore) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("ALTER TABLE store DROP COLUMN updated_at")
    async with store:
        await store.asetup()
        with pytest.raises(ConfigError, match="updated_at"):
            await aimport_langgraph_store(source, store)


@pytest.mark.usefixtures("vectors")
async def test_into_a_view_with_vectors(source: str, postgres_dsn: str, postgres_schema: str) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [[float("n" in text), 1.0] for text in texts]

    async with PostgresStore(postgres_dsn, schema=postgres_schema, index={"dims": 2, "embed": embed}) as store:
        await store.asetup()
        view = store.scoped("old")
        await aimport_langgraph_store(source, view)
        assert await view.alist_namespaces() == [("docs",), ("users", "ann")]
        assert all(item.score is not None for item in await view.asearch((), query="n"))


async def test_an_old_source_without_expiry(source: str, store: SharedStore) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("ALTER TABLE store DROP COLUMN expires_at, DROP COLUMN ttl_minutes")
    async with store:
        await store.asetup()
        assert await aimport_langgraph_store(source, store) == ImportReport(4, 4, 0)


async def test_a_source_that_is_none(postgres_dsn: str, postgres_schema: str, store: SharedStore) -> None:
    empty = make_conninfo(postgres_dsn, options=f"-csearch_path={postgres_schema}")
    async with store:
        await store.asetup()
        for source in (empty, "no dsn at all"):
            with pytest.raises(ConfigError, match="source"):
                await aimport_langgraph_store(source, store)
        with pytest.raises(StoreUnavailableError):
            await aimport_langgraph_store("postgresql://127.0.0.1:1/x", store)


async def test_large_items_come_a_few_at_a_time(source: str) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("ALTER TABLE store ALTER value SET STORAGE EXTERNAL")  # as they are, not compressed
        connection.execute(
            "INSERT INTO store (prefix, key, value) "
            "SELECT 'large', n, jsonb_build_object('v', repeat('x', 2000000 * n)) FROM generate_series(1, 3) AS n"
        )
    pages = [[item.key for item in page] async for page in langgraph_items(source, 500)]
    assert pages == [["k", "1", "2"], ["3"], ["one", "three", "two"]]


async def test_two_imports_at_once(source: str, postgres_dsn: str, postgres_schema: str) -> None:
    """Each item is taken over by one of them."""
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO store (prefix, key, value) SELECT 'many', n, '{}' FROM generate_series(1, 500) n"
        )
    stores = [PostgresStore(postgres_dsn, schema=postgres_schema) for _ in range(2)]
    async with stores[0], stores[1]:
        await stores[0].asetup()
        reports = await asyncio.gather(*(aimport_langgraph_store(source, store, batch_size=50) for store in stores))
        assert [report.read for report in reports] == [504, 504]
        assert sum(report.written for report in reports) == await stores[0].acount() == 504


async def test_an_import_while_its_source_is_written(source: str, store: SharedStore) -> None:
    """What was there at its start and stays is taken over, once."""
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(
            "INSERT INTO store (prefix, key, value) SELECT 'many', n, '{}' FROM generate_series(1, 60) n"
        )
        async with store:
            await store.asetup()
            importing = asyncio.create_task(aimport_langgraph_store(source, store, batch_size=7))
            turn = 0
            while not importing.done():
                turn += 1
                connection.execute("INSERT INTO store (prefix, key, value) VALUES ('again', %s, '{}')", [str(turn)])
                connection.execute(
                    "UPDATE store SET updated_at = now() WHERE prefix = 'many' AND key = %s", [str(turn)]
                )
                await asyncio.sleep(0)
            assert (await importing).written >= 64
            assert await store.acount(("many",)) == 60
            assert (await aimport_langgraph_store(source, store)).read == 64 + turn


def test_without_a_loop(source: str, store: SharedStore) -> None:
    with store:
        store.setup()
        assert import_langgraph_store(source, store) == ImportReport(4, 4, 0)
