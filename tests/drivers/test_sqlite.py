"""The shared SQLite connection when something goes wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deerflow_replica._drivers.sqlite import SqliteDatabase
from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.testing._contract import for_one_of
from threads_left import NewThreads
from waiting import eventually

pytestmark = pytest.mark.anyio

_TABLES = [
    "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
    "CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / "a.db")
    await database.open()
    await database.set_up(_TABLES)
    yield database
    await database.close()


async def test_a_commit_that_is_refused_leaves_no_transaction_open(database: SqliteDatabase) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        await database.write(lambda connection: connection.execute("INSERT INTO child VALUES (1)"))
    await database.write(lambda connection: connection.execute("INSERT INTO parent VALUES (1)"))
    rows = await database.read(lambda connection: connection.execute("SELECT count(*) FROM child").fetchone())
    assert rows == (0,)


async def test_a_transaction_that_sqlite_ended_itself_keeps_its_error(database: SqliteDatabase) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO parent VALUES (7)")
        connection.execute("INSERT OR ROLLBACK INTO parent VALUES (7)")

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        await database.write(work)


async def test_callers_that_queue_behind_a_lock_end_in_time(tmp_path: Path) -> None:
    async def end_in_time(seconds: float) -> bool:
        database = SqliteDatabase(tmp_path / "a.db", busy_timeout_seconds=seconds)
        await database.open()
        with sqlite3.connect(tmp_path / "a.db", isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            began = time.monotonic()
            writes = [database.write(lambda connection: connection.execute("SELECT 1")) for _ in range(6)]
            errors = await asyncio.gather(*writes, return_exceptions=True)
            took = time.monotonic() - began
            other.execute("ROLLBACK")
        other.close()
        assert all(isinstance(error, StoreUnavailableError) for error in errors)
        await database.write(lambda connection: connection.execute("SELECT 1"))
        await database.close()
        return took < 3 * seconds

    assert await for_one_of((0.5, 2.0, 8.0), end_in_time)


async def test_opened_by_several_loops_at_once_and_closed_by_the_last(new_threads: NewThreads, tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "a.db")

    async def use() -> None:
        for _ in range(5):
            await asyncio.gather(*(database.open() for _ in range(3)))
            await database.read(lambda connection: connection.execute("SELECT 1"))
            await asyncio.gather(*(database.close() for _ in range(3)))

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, use()) for _ in range(4)))
    assert not new_threads("deerflow-replica-sqlite")
    with pytest.raises(StoreUnavailableError):
        await database.read(lambda connection: connection.execute("SELECT 1"))
    database.runner.close()


async def test_an_opening_that_is_cancelled_leaves_nothing(new_threads: NewThreads, tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "a.db")
    for yields in range(12):
        opening = asyncio.ensure_future(database.open())
        for _ in range(yields):
            await asyncio.sleep(0)
        opening.cancel()
        try:
            await opening
        except asyncio.CancelledError:
            assert not new_threads("deerflow-replica-sqlite")
        else:
            await database.close()
    assert not new_threads("deerflow-replica-sqlite")


async def test_a_close_that_is_cancelled_closes(new_threads: NewThreads, tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "a.db")
    await database.open()
    closing = asyncio.ensure_future(database.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await eventually(lambda: not new_threads("deerflow-replica-sqlite"))


async def test_what_is_closed_says_so_without_a_thread(new_threads: NewThreads, tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "file.db")
    await database.open()
    await database.close()
    for use in (database.read, database.write):
        with pytest.raises(StoreUnavailableError, match="not open"):
            await use(lambda connection: connection.execute("SELECT 1"))
    for use_sync in (database.read_sync, database.write_sync):
        with pytest.raises(StoreUnavailableError, match="not open"):
            use_sync(lambda connection: connection.execute("SELECT 1"))
    assert not new_threads("deerflow-replica-sqlite")
