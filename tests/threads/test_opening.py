"""The map that a configuration names."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from deerflow_replica import AppConfig
from deerflow_replica._drivers.databases import Databases
from deerflow_replica.errors import ConfigError, StoreUnavailableError
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.threads import (
    InMemoryThreadMap,
    MongoThreadMap,
    PostgresThreadMap,
    RedisThreadMap,
    SqliteThreadMap,
    open_thread_map,
)

pytestmark = pytest.mark.anyio


def config(**section: Any) -> AppConfig:
    return AppConfig().evolve({"user_thread_mapping": section})


async def test_in_memory() -> None:
    async with open_thread_map(config(type="memory", tenant="blue", ttl_seconds=5)) as threads:
        assert isinstance(threads, InMemoryThreadMap)
        record = (await threads.claim("t", "ann")).record
        assert record is not None
        assert record.expires_at is not None
        assert threads.tenant == "blue"
    with pytest.raises(StoreUnavailableError, match="closed"):
        await threads.owner_of("t")


async def test_the_database_is_the_default(tmp_path: Path) -> None:
    chosen = AppConfig().evolve({"database": {"sqlite_dir": str(tmp_path)}})
    async with open_thread_map(chosen) as threads:
        assert isinstance(threads, SqliteThreadMap)
        await threads.claim("t", "ann")
    assert (tmp_path / "deerflow_replica.db").exists()
    async with open_thread_map(chosen) as again:
        assert await again.owner_of("t") == "ann"


@pytest.mark.parametrize("kind", ["postgres", "postgres-legacy"])
async def test_postgres(postgres_dsn: str, postgres_schema: str, kind: str) -> None:
    chosen = config(type=kind, connection_string=postgres_dsn, postgres_schema=postgres_schema, table="owners")
    async with open_thread_map(chosen) as threads:
        assert isinstance(threads, PostgresThreadMap)
        await threads.claim("t", "ann")
    async with PostgresThreadMap(postgres_dsn, schema=postgres_schema, table="owners") as beside:
        assert await beside.owner_of("t") == "ann"


async def test_redis(redis_url: str, key_prefix: str) -> None:
    chosen = config(type="redis", connection_string=redis_url, redis_key_prefix=key_prefix, tombstone_seconds=0)
    databases = Databases()
    async with open_thread_map(chosen, databases=databases) as threads, open_thread_map(chosen) as alone:
        assert isinstance(threads, RedisThreadMap)
        assert await threads.hold("t", "ann")
        assert await alone.owner_of("t") == "ann"
        async with open_thread_map(chosen, databases=databases) as beside:
            assert beside.runner is threads.runner is not alone.runner
            assert await beside.delete("t", user_id="ann")
        assert await threads.hold("t", "bob")


async def test_mongodb(mongo_url: str, mongo_database: str) -> None:
    chosen = config(type="mongo", connection_string=mongo_url, mongo_database=mongo_database, table="owners")
    async with open_thread_map(chosen, databases=Databases()) as threads:
        assert isinstance(threads, MongoThreadMap)
        await threads.claim("t", "ann")
    async with MongoThreadMap(mongo_url, database=mongo_database, collection="owners") as beside:
        assert await beside.owner_of("t") == "ann"


@pytest.mark.parametrize(("key", "name"), [("mongo_database", "a.b"), ("mongo_collection", "a..b")])
async def test_names_that_mongodb_does_not_take(key: str, name: str) -> None:
    chosen = config(type="mongo", connection_string="mongodb://127.0.0.1:1", **{key: name})
    with pytest.raises(ConfigError, match=rf"user_thread_mapping\.{key}"):
        async with open_thread_map(chosen):
            raise AssertionError("it opened")


async def test_a_shared_database_is_closed_by_its_last_user(tmp_path: Path) -> None:
    chosen = config(type="sqlite", connection_string=str(tmp_path / "threads.db"))
    databases = Databases()
    async with open_thread_map(chosen, databases=databases) as first:
        async with open_thread_map(chosen, databases=databases) as second:
            await second.claim("t", "ann")
        assert await first.owner_of("t") == "ann"


async def test_a_server_that_is_away() -> None:
    async def is_told_in_time(seconds: float) -> bool:
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError) as failed:
            async with PostgresThreadMap("postgresql://u:secret@127.0.0.1:1/x", operation_timeout_seconds=seconds):
                raise AssertionError("it opened")
        assert "secret" not in f"{failed.value} {failed.value.__cause__}"
        return time.monotonic() - started < 2 * seconds

    assert await for_one_of((2.0, 10.0), is_told_in_time)


async def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError):
        async with SqliteThreadMap(tmp_path / "file" / "threads.db"):
            raise AssertionError("it opened")


async def test_use_before_set_up(tmp_path: Path) -> None:
    threads = SqliteThreadMap(tmp_path / "threads.db")
    with pytest.raises(StoreUnavailableError, match="setup"):
        await threads.owner_of("t")
    assert not (tmp_path / "threads.db").exists()


async def test_a_borrowed_pool_is_left_open(postgres_dsn: str, postgres_schema: str) -> None:
    from psycopg_pool import AsyncConnectionPool

    pool: Any = AsyncConnectionPool(postgres_dsn, kwargs={"autocommit": True}, open=False, min_size=1)
    async with pool:
        async with PostgresThreadMap(pool=pool, schema=postgres_schema) as threads:
            assert (await threads.claim("t", "ann")).created
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")


@pytest.mark.parametrize("bad", ["", "a-b", 'a"b', "x" * 49, "1a", "ü"])
def test_bad_tables(bad: str) -> None:
    with pytest.raises(ValueError, match="table"):
        SqliteThreadMap(":memory:", table=bad)
    with pytest.raises(ValueError, match="table"):
        PostgresThreadMap("", table=bad)


def test_no_driver_is_imported() -> None:
    program = (
        "import sys, deerflow_replica.threads, deerflow_replica.middleware;"
        "print([name for name in sys.modules if name.split('.')[0] in {'psycopg', 'redis', 'pymongo', 'aiosqlite'}])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_map_outlives_its_connections(postgres_dsn: str, postgres_schema: str) -> None:
    dsn = make_conninfo(postgres_dsn, application_name=postgres_schema)
    cut = b"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
    async with PostgresThreadMap(dsn, schema=postgres_schema) as threads:
        await threads.claim("t", "ann")
        for _ in range(3):
            async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
                counted = await (await connection.execute(cut, [postgres_schema])).fetchone()
                assert counted is not None
                assert counted[0] >= 1
            assert (await threads.claim("t", "ann")).granted
            assert await threads.touch("t", user_id="ann")
