"""The counters that a configuration names, and what a connection or a driver has to do with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from deerflow_replica._drivers.databases import Databases
from deerflow_replica.config import AppConfig
from deerflow_replica.counters import (
    InMemoryModelCounters,
    ModelCounters,
    MongoModelCounters,
    PostgresModelCounters,
    RedisModelCounters,
    SqliteModelCounters,
    open_model_counters,
)
from deerflow_replica.errors import ConfigError

pytestmark = pytest.mark.anyio


def config(**model_feedback: Any) -> AppConfig:
    return AppConfig.from_mapping({"model_feedback": model_feedback})


async def counts_something(counters: ModelCounters) -> None:
    counters.record("m", "success")
    await counters.flush()
    assert (await counters.totals())["m"].call_count == 1


async def test_sqlite_in_the_named_file(tmp_path: Path) -> None:
    path = tmp_path / "there" / "counters.db"
    async with open_model_counters(config(type="sqlite", connection_string=str(path), table="mine")) as counters:
        assert isinstance(counters, SqliteModelCounters)
        await counts_something(counters)
    async with SqliteModelCounters(path, table="mine") as again:
        assert (await again.totals())["m"].call_count == 1


async def test_postgres_in_the_named_schema(postgres_dsn: str, postgres_schema: str) -> None:
    named = config(type="postgres", connection_string=postgres_dsn, postgres_schema=postgres_schema, table="mine")
    async with open_model_counters(named, replica_id="pod-1.x") as counters:
        assert isinstance(counters, PostgresModelCounters)
        assert counters.replica_id == "pod-1.x"
        await counts_something(counters)
    with psycopg.connect(postgres_dsn) as connection:
        query = f"SELECT sum((counts->>'call_count')::int) FROM \"{postgres_schema}\".mine WHERE bucket = 0"
        assert connection.execute(query.encode()).fetchone() == (1,)


async def test_the_memory_of_this_process() -> None:
    async with open_model_counters(config(type="memory", durability="sync", max_models=1)) as counters:
        assert isinstance(counters, InMemoryModelCounters)
        assert counters.durability == "sync"
        counters.record("m", "success")
        counters.record("n", "success")
        assert list(counters.local_totals()) == ["__other__", "m"]


async def test_not_enabled_counts_in_this_process_only() -> None:
    off = config(enabled=False, type="postgres", connection_string="postgresql://nobody@127.0.0.1:1/none")
    async with open_model_counters(off) as counters:
        assert isinstance(counters, InMemoryModelCounters)


async def test_redis_under_the_named_prefix(redis_url: str, key_prefix: str) -> None:
    named = config(type="redis", connection_string=redis_url, redis_key_prefix=key_prefix)
    async with open_model_counters(named, databases=Databases()) as counters:
        assert isinstance(counters, RedisModelCounters)
        await counts_something(counters)
    async with RedisModelCounters(redis_url, key_prefix=key_prefix) as again:
        assert (await again.totals())["m"].call_count == 1


async def test_mongodb_in_the_named_collection(mongo_url: str, mongo_database: str) -> None:
    named = config(type="mongo", connection_string=mongo_url, mongo_database=mongo_database, mongo_collection="mine")
    async with open_model_counters(named, databases=Databases()) as counters:
        assert isinstance(counters, MongoModelCounters)
        await counts_something(counters)
    async with MongoModelCounters(mongo_url, database=mongo_database, collection="mine") as again:
        assert (await again.totals())["m"].call_count == 1


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"type": "redis", "connection_string": "http://h"}, "connection_string"),
        ({"type": "mongo", "connection_string": "mongodb://h:port/"}, "connection_string"),
        ({"type": "mongo", "connection_string": "mongodb://h/", "mongo_database": "a b"}, "mongo_database"),
        ({"type": "mongo", "connection_string": "mongodb://h/", "mongo_collection": "a$b"}, "mongo_collection"),
        ({"type": "redis", "connection_string": "redis://h", "redis_key_prefix": "a{}"}, "redis_key_prefix"),
    ],
)
async def test_what_cannot_be_meant_is_named_with_its_key(section: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError, match=f"model_feedback.{key}"):
        async with open_model_counters(config(**section)):
            raise AssertionError("it opened")


async def test_parts_share_one_database(tmp_path: Path) -> None:
    databases = Databases()
    shared = config(type="sqlite", connection_string=str(tmp_path / "shared.db"))
    async with open_model_counters(shared, databases=databases) as one:
        async with open_model_counters(shared, databases=databases) as two:
            two.record("m", "success")
        assert (await one.totals())["m"].call_count == 1


async def test_a_borrowed_pool_is_used_as_it_is_and_left_open(postgres_dsn: str, postgres_schema: str) -> None:
    for autocommit in (True, False):
        keywords: Any = {"autocommit": autocommit, "row_factory": dict_row}
        pool: Any = AsyncConnectionPool(postgres_dsn, min_size=1, max_size=3, kwargs=keywords, open=False)
        async with pool:
            table = f"of_{autocommit}"
            async with PostgresModelCounters(pool=pool, schema=postgres_schema, table=table) as counters:
                await counts_something(counters)
                await counters.add_feedback("m", "positive", thread_id="t", run_id="r", user_id="u")
                assert await counters.compact(dead_after_seconds=0) == 1
                assert (await counters.totals())["m"].positive_feedback_count == 1
            assert not pool.closed
            async with PostgresModelCounters(postgres_dsn, schema=postgres_schema, table=table) as sibling:
                assert (await sibling.totals())["m"].call_count == 1


async def test_the_flusher_writes_through_a_borrowed_pool(postgres_dsn: str, postgres_schema: str) -> None:
    from waiting import eventually

    pool: Any = AsyncConnectionPool(postgres_dsn, min_size=1, max_size=3, kwargs={"autocommit": True}, open=False)
    async with pool, PostgresModelCounters(pool=pool, schema=postgres_schema, flush_interval_seconds=0.05) as counters:
        counters.record("m", "success")

        async def written() -> Any:
            async with PostgresModelCounters(postgres_dsn, schema=postgres_schema) as sibling:
                return bool(await sibling.totals())

        await eventually(written)


@pytest.mark.parametrize("table", ["a b", "a;b", 'a"b', "x" * 60])
def test_a_table_has_a_plain_name(table: str, tmp_path: Path) -> None:
    for build in (
        lambda: SqliteModelCounters(tmp_path / "x.db", table=table),
        lambda: PostgresModelCounters("", table=table),
    ):
        with pytest.raises(ConfigError):
            build()


async def test_counters_that_nobody_closed_warn(tmp_path: Path) -> None:
    counters = SqliteModelCounters(tmp_path / "x.db", flush_interval_seconds=3600)
    await counters.setup()
    database, flusher = counters._database, counters._flusher
    forgotten = [counters]
    del counters
    with pytest.warns(ResourceWarning, match="not closed"):
        forgotten.clear()
    assert flusher is not None
    flusher.join()
    await database.close()


def test_importing_the_counters_imports_no_driver() -> None:
    program = (
        "import sys, deerflow_replica.counters, deerflow_replica.middleware.counter;"
        "found = {'redis', 'psycopg', 'pymongo', 'aiosqlite', 'sqlite3', 'starlette', 'uvicorn'} & set(sys.modules);"
        "sys.exit(str(found) if found else 0)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
