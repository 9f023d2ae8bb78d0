"""What only the PostgreSQL store has: a server that many replicas share, that dies, and that others pool."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from langgraph.store.base import GetOp, PutOp
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from deerflow_replica._drivers.postgres import connected_pool
from deerflow_replica._drivers.texts_postgres import Texts
from deerflow_replica.errors import ConfigError, StoreUnavailableError, VersionConflictError
from deerflow_replica.store import PostgresStore, SharedStore
from deerflow_replica.testing._contract import for_one_of
from proxy import CuttingProxy, cutting_proxy
from store.replicas import check_nothing_is_lost, write_together
from waiting import eventually, eventually_sync

pytestmark = pytest.mark.anyio

PLACE = (("a",), "k")


@pytest.fixture
async def store(postgres_dsn: str, postgres_schema: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(postgres_dsn, schema=postgres_schema) as store:
        await store.asetup()
        yield store


@pytest.fixture
async def proxied(postgres_dsn: str, store: SharedStore, postgres_schema: str) -> AsyncIterator[Proxied]:
    """Another replica of the same store, behind a proxy."""
    server = conninfo_to_dict(postgres_dsn)
    host, port = str(server.get("host") or "127.0.0.1"), server.get("port") or 5432
    target = f"unix://{host}/.s.PGSQL.{port}" if host.startswith("/") else f"redis://{host}:{port}"
    async with cutting_proxy(target) as proxy:
        assert proxy._server is not None
        through = make_conninfo(postgres_dsn, host="127.0.0.1", port=proxy._server.sockets[0].getsockname()[1])
        async with PostgresStore(through, schema=postgres_schema, timeout_seconds=5, pool_max_size=2) as replica:
            yield Proxied(replica, proxy)


class Proxied:
    def __init__(self, store: PostgresStore, proxy: CuttingProxy) -> None:
        self.store = store
        self.proxy = proxy


@pytest.fixture
def databases(postgres_dsn: str) -> Iterator[list[str]]:
    """The DSNs of ten fresh databases."""
    names = [f"fresh_{uuid.uuid4().hex[:12]}" for _ in range(10)]
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name}".encode())
        yield [make_conninfo(postgres_dsn, dbname=name) for name in names]
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def kill(dsn: str, schema: str) -> int:
    """Every connection whose last statement was on this schema's tables: how many."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND query LIKE %s",
            [f'%"{schema}"."store_%'],
        )
        return len(cursor.fetchall())


def deadlocks(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
        assert row is not None
        return int(row[0])


async def test_several_processes(postgres_dsn: str, postgres_schema: str) -> None:
    await write_together("PostgresStore", conn=postgres_dsn, schema=postgres_schema)
    async with PostgresStore(postgres_dsn, schema=postgres_schema) as store:
        await check_nothing_is_lost(store)


async def test_replicas_set_up_fresh_databases_together(databases: list[str], has_vectors: bool) -> None:
    """Forty successes, vectors and texts included."""

    async def set_up(dsn: str) -> None:
        index: Any = {"dims": 2, "embed": lambda texts: [[1.0, 2.0] for _ in texts]} if has_vectors else None
        async with PostgresStore(dsn, index=index, text_index={"fields": ["$"]}, pool_max_size=1) as store:
            await store.asetup()
            await store.aput(*PLACE, {"n": 1})
            assert await store.acount() == 1

    for dsn in databases:
        await asyncio.gather(*(set_up(dsn) for _ in range(4)))


@pytest.mark.usefixtures("vectors")
async def test_stores_of_one_database_install_the_extension_once(databases: list[str]) -> None:
    index: Any = {"dims": 2, "embed": lambda texts: [[1.0, 2.0] for _ in texts]}
    stores = [PostgresStore(databases[0], schema=f"schema_{n}", index=index, pool_max_size=1) for n in range(6)]
    try:
        await asyncio.gather(*(store.asetup() for store in stores))
    finally:
        await asyncio.gather(*(store.aclose() for store in stores))


async def test_killed_connections_are_not_seen(store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    await asyncio.gather(*(store.aput(("a",), str(n), {"n": n}) for n in range(10)), store.asearch(("a",)))
    for _ in range(3):
        assert await asyncio.to_thread(kill, postgres_dsn, postgres_schema)
        item = await store.aget(("a",), "3")
        assert item is not None
        assert item.value == {"n": 3}
        await asyncio.to_thread(kill, postgres_dsn, postgres_schema)
        await store.aput(("a",), "3", {"n": 3})


async def test_a_conditional_write_over_a_killed_connection(
    store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    """It is repeated when the version shows that it was not done."""
    version = 0
    for n in range(3):
        version = await store.aput(*PLACE, {"n": n}, if_version=version) or 0
        assert await asyncio.to_thread(kill, postgres_dsn, postgres_schema)
    with pytest.raises(VersionConflictError):
        await store.aput(*PLACE, {}, if_version=version + 1000)
    assert await asyncio.to_thread(kill, postgres_dsn, postgres_schema)
    await store.adelete(*PLACE, if_version=version)


async def test_connections_killed_all_the_time(store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    """Every call succeeds or says that the store was away, and an update that succeeded is there once."""
    is_over = asyncio.Event()
    succeeded = unknown = 0

    async def murder() -> None:
        while not is_over.is_set():
            await asyncio.to_thread(kill, postgres_dsn, postgres_schema)

    async def count() -> None:
        nonlocal succeeded, unknown
        for _ in range(30):
            try:
                await store.aupdate(*PLACE, lambda value: {"n": (value or {"n": 0})["n"] + 1}, max_attempts=1000)
                succeeded += 1
            except StoreUnavailableError:
                unknown += 1

    murderer = asyncio.create_task(murder())
    await asyncio.gather(count(), count())
    is_over.set()
    await murderer
    item = await store.aget(*PLACE)
    assert item is not None
    assert succeeded > 0
    assert succeeded <= item.value["n"] <= succeeded + unknown


async def _more_is_seen(proxied: Proxied) -> None:
    """Something has come to the proxy."""
    before = [link.seen for link in proxied.proxy.links]
    await eventually(lambda: [link.seen for link in proxied.proxy.links] != before)


async def test_a_cut_in_the_middle_of_calls(proxied: Proxied, store: SharedStore) -> None:
    await proxied.store.aput(*PLACE, {"n": 0})
    for n in range(1, 4):
        proxied.proxy.flows.clear()
        calls: list[asyncio.Task[Any]] = [asyncio.create_task(proxied.store.aget(*PLACE)) for _ in range(5)]
        calls += [asyncio.create_task(proxied.store.aput(("b", str(n)), str(key), {})) for key in range(5)]
        await _more_is_seen(proxied)
        proxied.proxy.cut()
        proxied.proxy.flows.set()
        await asyncio.gather(*calls)
    assert await store.acount(("b",)) == 15


async def test_a_lost_reply_of_a_conditional_write_is_never_told_as_a_conflict(
    proxied: Proxied, store: SharedStore
) -> None:
    version = await proxied.store.aput(*PLACE, {"n": 0}, if_version=0)
    proxied.proxy.swallows_replies = True
    call = asyncio.create_task(proxied.store.aput(*PLACE, {"n": 1}, if_version=version))
    await eventually(lambda: proxied.proxy.swallowed)
    proxied.proxy.swallows_replies = False
    with pytest.raises(StoreUnavailableError):
        await call
    item = await store.aget(*PLACE)
    assert item is not None
    assert item.value == {"n": 1}


@pytest.fixture
def locked_item(postgres_dsn: str, postgres_schema: str, store: SharedStore) -> Iterator[None]:
    """An item that somebody else holds on to."""
    store.runner.call(store.aput(*PLACE, {"n": 0}))
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(f"SELECT FROM {postgres_schema}.store_items FOR UPDATE".encode())
        yield


def _lock_waits(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
        return int(row[0]) if row else 0


async def test_what_takes_too_long_is_unavailable_and_holds_nobody_up(
    locked_item: None, postgres_dsn: str, postgres_schema: str
) -> None:
    async def is_told_in_time(seconds: float) -> bool:
        async with PostgresStore(postgres_dsn, schema=postgres_schema, timeout_seconds=seconds) as store:
            puts = (store.aput(*PLACE, {}), store.aput(*PLACE, {}, if_version=1))
            stuck = [asyncio.create_task(put) for put in puts]
            # What comes later is sent apart.
            await eventually(lambda: _lock_waits(postgres_dsn) or all(put.done() for put in stuck))
            try:
                await store.aput(("b",), "k", {})
                assert await store.aget(("b",), "k") is not None
                was_held_up = all(put.done() for put in stuck)
            except StoreUnavailableError:
                was_held_up = True
            for outcome in await asyncio.gather(*stuck, return_exceptions=True):
                assert isinstance(outcome, StoreUnavailableError)
            if not was_held_up:
                await store.aput(("b",), "k", {})
        return not was_held_up

    assert await for_one_of((0.3, 3.0, 15.0), is_told_in_time)


async def test_what_the_server_refuses_fails_alone(postgres_dsn: str, postgres_schema: str) -> None:
    """More different words than a tsvector holds."""
    async with PostgresStore(postgres_dsn, schema=postgres_schema, text_index={"fields": ["t"]}) as store:
        await store.asetup()
        calls = [store.aput(("a",), str(n), {"t": f"word{n}"}) for n in range(20)]
        calls[7].close()
        calls[7] = store.aput(("a",), "7", {"t": " ".join(f"word{n}" for n in range(200_000))})
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [place for place, outcome in enumerate(outcomes) if outcome is not None] == [7]
        assert isinstance(outcomes[7], ValueError)
        assert await store.acount() == 19
        with pytest.raises(ValueError, match="PostgreSQL"):
            await store.abatch([PutOp(("b",), "k", {}), PutOp(("b",), "l", {"t": " ".join(map(str, range(300_000)))})])
        assert await store.acount(("b",)) == 0


async def test_opposite_orders_in_several_loops(postgres_dsn: str, postgres_schema: str, store: SharedStore) -> None:
    def work(order: int) -> None:
        keys = [str(n) for n in range(40)][::order]
        with PostgresStore(postgres_dsn, schema=postgres_schema, pool_max_size=2) as replica:
            for turn in range(15):
                replica.batch([PutOp(("a",), key, None if (int(key) + turn) % 4 == 0 else {"n": turn}) for key in keys])

    before = deadlocks(postgres_dsn)
    await asyncio.gather(*(asyncio.to_thread(work, order) for order in (1, -1, 1, -1)))
    assert deadlocks(postgres_dsn) == before


async def test_a_borrowed_pool_stays_open(postgres_dsn: str, postgres_schema: str) -> None:
    lent: Any = AsyncConnectionPool(postgres_dsn, min_size=1, max_size=2, open=False)  # not autocommit
    async with lent as pool:
        async with PostgresStore(pool, schema=postgres_schema) as store:
            await store.asetup()
            await store.aput(*PLACE, {"n": 1})
            version = (await store.aget_versioned(*PLACE)).version  # type: ignore[union-attr]  # it is there
            await store.aput(*PLACE, {"n": 2}, if_version=version)
            item = await asyncio.to_thread(store.get, *PLACE)
            assert item is not None
            assert item.value == {"n": 2}
            with pytest.raises(RuntimeError, match="loop"):
                await asyncio.to_thread(asyncio.run, _get(store))
        async with pool.connection() as connection:
            assert connection.autocommit is False
            cursor = await connection.execute(f"SELECT value FROM {postgres_schema}.store_items".encode())
            assert await cursor.fetchone() == ({"n": 2},)


async def test_a_newer_database_is_left_alone(store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"UPDATE {postgres_schema}.store_about SET value = '99' WHERE name = 'version'".encode())
    async with PostgresStore(postgres_dsn, schema=postgres_schema) as later:
        for call in (later.aget(*PLACE), later.asetup()):
            with pytest.raises(ConfigError, match="newer"):
                await call


async def test_few_statements_are_prepared(store: PostgresStore, postgres_schema: str) -> None:
    for n in range(60):
        await store.asearch(("a",), filter={f"field{n % 30}": n, "other": {"$gt": n}}, limit=10 + n)
        await store.aput(("a",), str(n), {"n": n}, ttl=n % 3 or None)
        await asyncio.gather(*(store.aget(("a",), str(key)) for key in range(n)))

    async def prepared(connection: Any) -> int:
        cursor = await connection.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False)
        return int((await cursor.fetchone())[0])

    engine = store._engines.here()
    assert engine is not None
    backend: Any = engine.backend
    assert 0 < await backend._connections.run(prepared) <= 20


async def test_a_role_without_the_right_to_create_schemas(postgres_dsn: str, postgres_schema: str) -> None:
    role = f"role_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA {postgres_schema} TO {role}".encode())
        try:
            async with PostgresStore(make_conninfo(postgres_dsn, user=role), schema=postgres_schema) as store:
                await store.asetup(create_schema=False)
                await store.asetup()
                await store.aput(*PLACE, {})
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_ddl_can_be_run_by_hand(postgres_dsn: str, postgres_schema: str) -> None:
    with PostgresStore(postgres_dsn, schema=postgres_schema) as store:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute(store.ddl().encode())
        store.setup()
        store.put(*PLACE, {})


def test_set_up_brings_tables_of_version_1_up_to_date(postgres_dsn: str, postgres_schema: str) -> None:
    with PostgresStore(postgres_dsn, schema=postgres_schema) as store:
        store.setup()
        store.put(*PLACE, {"kept": 1})
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute(_VERSION_1.replace("SCHEMA", postgres_schema).encode())
    with PostgresStore(postgres_dsn, schema=postgres_schema) as store:
        with pytest.raises(ConfigError, match="setup"):
            store.get(*PLACE)
        store.setup()
        assert [item.value for item in store.search(PLACE[0])] == [{"kept": 1}]
    with psycopg.connect(postgres_dsn) as connection:
        assert _indexes(connection, postgres_schema) == {"items_pkey", "items_by_time", "items_by_expiry"}


def test_writing_an_item_again_soon_touches_no_index(postgres_dsn: str, postgres_schema: str) -> None:
    """PostgreSQL counts updates that could stay in the row's page ("HOT"): a column of an index prevents them."""
    with PostgresStore(postgres_dsn, schema=postgres_schema) as store:
        store.setup()
        for count in range(50):
            store.put(*PLACE, {"count": count})
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        eventually_sync(lambda: _updates(connection, postgres_schema)[0] == 49)
        assert _updates(connection, postgres_schema)[1] >= 40  # the ten seconds may end meanwhile


def test_bad_arguments_are_refused_at_once() -> None:
    index: Any = {"dims": 3000, "embed": len}
    for keywords in (
        {"schema": 'a"b'},
        {"schema": ""},
        {"pool_max_size": 0},
        {"pool_min_size": 9},
        {"index": index},
        {"index": {"dims": 0, "embed": len}},
        {"index": {"dims": 3, "embed": len, "distance_type": "hamming"}},
        {"index": {"dims": 3, "embed": len, "ann_index_config": {"kind": "ball"}}},
    ):
        with pytest.raises(ConfigError):
            PostgresStore("postgresql://", **keywords)
    for ann in ({"vector_type": "halfvec"}, {"kind": "flat"}):
        assert "CREATE" in PostgresStore("", index=index | {"ann_index_config": ann}).ddl()


async def test_a_server_that_is_not_there() -> None:
    store = PostgresStore("postgresql://127.0.0.1:1/x", timeout_seconds=2)
    for call in (store.aget(*PLACE), store.aput(*PLACE, {}), store.asetup(), store.__aenter__()):
        with pytest.raises(StoreUnavailableError):
            await call
    await store.aclose()
    with pytest.raises(ConfigError, match="dsn"):
        await PostgresStore("not a dsn").aget(*PLACE)


async def _get(store: SharedStore) -> None:
    await store.abatch([GetOp(*PLACE)])


async def test_texts_of_a_list_arrive_as_they_are(postgres_dsn: str) -> None:
    texts = Texts(["", "a", "NULL", '{"a,b"}', "é\U0001f98c\\", "\x01"])
    pool = await connected_pool(postgres_dsn, max_size=1, timeout_seconds=5)
    try:
        async with pool.connection() as connection:
            for given in (texts, Texts()):
                cursor = await connection.execute("SELECT %b, array_length(%b, 1)", [given, given])
                assert await cursor.fetchone() == (list(given), len(given) or None)
    finally:
        await pool.close()


_VERSION_1 = """
ALTER TABLE "SCHEMA".store_items DROP COLUMN updated_near CASCADE;
CREATE INDEX store_items_by_update ON "SCHEMA".store_items (namespace, updated_at DESC, key);
UPDATE "SCHEMA".store_about SET value = '1' WHERE name = 'version'
"""


def _indexes(connection: psycopg.Connection[Any], schema: str) -> set[str]:
    named = "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND tablename = 'store_items'"
    return {name.removeprefix("store_") for (name,) in connection.execute(named, [schema]).fetchall()}


def _updates(connection: psycopg.Connection[Any], schema: str) -> tuple[int, int]:
    """All, and those that touched no index."""
    counted = (
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables WHERE schemaname = %s AND relname = 'store_items'"
    )
    row = connection.execute(counted, [schema]).fetchone()
    return row or (0, 0)
