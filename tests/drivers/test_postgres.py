"""The shared PostgreSQL pool when something goes wrong."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from deerflow_replica._drivers.postgres import PostgresDatabase, connected_pool
from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.testing._contract import for_one_of

if TYPE_CHECKING:
    from deerflow_replica._drivers.postgres import Connection, connected_pool

from threads_left import NewThreads
from waiting import eventually

pytestmark = pytest.mark.anyio


async def _one(connection: Connection) -> Any:
    return await (await connection.execute("SELECT 1")).fetchone()


async def _sleep(connection: Connection) -> Any:
    return await connection.execute("SELECT pg_sleep(30)")


def _with(dsn: str, parameter: str) -> str:
    return f"{dsn}{'&' if '?' in dsn else '?'}{parameter}"


async def _backends(dsn: str, name: str) -> int:
    database = PostgresDatabase(dsn)
    await database.open()

    async def count(connection: Connection) -> int:
        cursor = await connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name])
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    try:
        return await database.execute(count)
    finally:
        await database.close()


async def test_rows_are_tuples_on_a_pool_that_makes_dicts(postgres_dsn: str) -> None:
    async with AsyncConnectionPool(postgres_dsn, kwargs={"row_factory": dict_row, "autocommit": True}) as pool:
        lent: Any = pool
        database = PostgresDatabase(pool=lent)
        await database.open()
        assert await database.execute(_one) == (1,)
        await database.close()
        async with pool.connection() as connection:
            row: Any = await (await connection.execute("SELECT 1 AS one")).fetchone()
            assert row == {"one": 1}


async def test_a_call_under_way_at_the_close_is_an_error(new_threads: NewThreads, postgres_dsn: str) -> None:
    database = PostgresDatabase(postgres_dsn)
    await database.open()
    asked = asyncio.ensure_future(database.execute(_sleep))
    await database.execute(_one)
    await database.close()
    with pytest.raises(StoreUnavailableError):
        await asked
    assert not new_threads("deerflow-replica-postgres")


async def test_an_exhausted_pool_is_an_error_in_time(postgres_dsn: str) -> None:
    async def is_told_in_time(seconds: float) -> bool:
        database = PostgresDatabase(postgres_dsn, max_size=1, timeout_seconds=seconds)
        try:
            await database.open()
            errors = await asyncio.gather(*(database.execute(_sleep) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(error, StoreUnavailableError) for error in errors)
            return bool(await database.execute(_one) == (1,))
        except StoreUnavailableError:  # the machine stood still
            return False
        finally:
            await database.close()

    assert await for_one_of((0.5, 5.0, 20.0), is_told_in_time)


async def test_a_statement_timeout_is_an_error(postgres_dsn: str) -> None:
    database = PostgresDatabase(
        f"{postgres_dsn}{'&' if '?' in postgres_dsn else '?'}options=-c%20statement_timeout%3D200"
    )
    await database.open()
    with pytest.raises(StoreUnavailableError, match="timeout"):
        await database.execute(_sleep)
    await database.close()


async def test_what_collides_runs_again(postgres_dsn: str, postgres_schema: str) -> None:
    database = PostgresDatabase(_with(postgres_dsn, "options=-c%20default_transaction_isolation%3Dserializable"))
    await database.open()
    table = f'"{postgres_schema}".numbers'
    await database.set_up("numbers", [f"CREATE TABLE {table} (n int)", f"INSERT INTO {table} VALUES (0)"])

    async def add(connection: Connection) -> None:
        async with connection.transaction():
            cursor = await connection.execute(f"SELECT n FROM {table}".encode())
            row = await cursor.fetchone()
            assert row is not None
            await connection.execute(f"UPDATE {table} SET n = %s".encode(), [row[0] + 1])

    await asyncio.gather(*(database.execute(add) for _ in range(10)))
    cursor = await database.execute(lambda connection: connection.execute(f"SELECT n FROM {table}".encode()))
    assert await cursor.fetchone() == (10,)
    await database.close()


async def test_an_opening_that_is_cancelled_leaves_nothing(new_threads: NewThreads, postgres_dsn: str) -> None:
    name = "opening_cancelled"
    database = PostgresDatabase(_with(postgres_dsn, f"application_name={name}"))
    for milliseconds in range(0, 60, 4):
        opening = asyncio.ensure_future(database.open())
        await asyncio.wait([opening], timeout=milliseconds / 1000)
        opening.cancel()
        try:
            await opening
        except asyncio.CancelledError:
            assert not new_threads("deerflow-replica-postgres")
        else:
            await database.close()
    assert not new_threads("deerflow-replica-postgres")

    async def are_gone() -> bool:
        return await _backends(postgres_dsn, name) == 0

    await eventually(are_gone, what="the end of every backend")


async def test_what_is_closed_says_so_without_a_thread(new_threads: NewThreads, postgres_dsn: str) -> None:
    async def ask(connection: Connection) -> None:
        await connection.execute("SELECT 1")

    database = PostgresDatabase(postgres_dsn)
    await database.open()
    await database.close()
    with pytest.raises(StoreUnavailableError, match="not open"):
        await database.execute(ask)
    with pytest.raises(StoreUnavailableError, match="not open"):
        database.execute_sync(ask)
    assert not new_threads("deerflow-replica-postgres")


def test_a_pool_that_is_left_open_ends_with_its_loop(postgres_dsn: str) -> None:
    """Also in the midst of a connect: the pool takes its cancellation for an error of the server's, and goes on."""

    async def leave_open(turns: int) -> None:
        pool = await connected_pool(postgres_dsn, max_size=8, timeout_seconds=5)

        async def use() -> None:
            async with pool.connection() as connection:
                await connection.execute("SELECT pg_sleep(0.01)")

        users = [asyncio.create_task(use()) for _ in range(8)]
        for _ in range(turns):
            await asyncio.sleep(0)
        assert users

    def leave_many_open() -> None:
        for turns in range(20):
            asyncio.run(leave_open(turns))

    leaving = threading.Thread(target=leave_many_open, daemon=True)
    leaving.start()
    leaving.join(120)
    assert not leaving.is_alive()
