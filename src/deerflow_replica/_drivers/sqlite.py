"""SQLite through the standard library: one connection on a thread of its own, and sqlite3's errors as ours."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from .._sync import LoopThread
from ..errors import StoreUnavailableError
from .shared import SharedDatabase

T = TypeVar("T")


@contextmanager
def sqlite_errors(path: str) -> Iterator[None]:
    """A locked, unwritable or broken file becomes `StoreUnavailableError`; a mistake of ours passes as it is."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError)):
            raise
        raise StoreUnavailableError(f"SQLite file {path} is not available: {error}") from error


class SqliteDatabase(SharedDatabase):
    """One WAL connection on a private thread, usable from any loop and thread, safe between processes.

    `read` and `write` run a function of the connection there; `write` in one BEGIN IMMEDIATE transaction (a deferred
    one that is upgraded fails with "database is locked"). A call waits at most `busy_timeout_seconds` for its turn here
    and for the lock of other processes. `open` creates the folders above the file. Parts that share a file share one
    of these. `":memory:"` is private to the object.
    """

    def __init__(self, path: str | Path, *, busy_timeout_seconds: float = 10.0) -> None:
        super().__init__()
        self.path = str(path)
        self._busy_timeout_seconds = busy_timeout_seconds
        self._connection: sqlite3.Connection | None = None
        self.runner = LoopThread("deerflow-replica-sqlite")

    async def touch(self) -> None:
        """Find out whether the file can be used; leaves it, in WAL mode, and nothing open."""
        await self.open()
        await self.close()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._opened()  # asked here, too: what is closed starts no thread to say so
        return await self.runner.acall(self._read(work, self._deadline()))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._opened()  # asked here, too: what is closed starts no thread to say so
        return await self.runner.acall(self._write(work, self._deadline()))

    def read_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._opened()
        return self.runner.call(self._read(work, self._deadline()))

    def write_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._opened()
        return self.runner.call(self._write(work, self._deadline()))

    async def set_up(self, statements: list[str]) -> None:
        """Run idempotent DDL in one transaction."""

        def work(connection: sqlite3.Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self.write(work)

    async def _connect(self) -> None:
        if self._connection is None:
            with sqlite_errors(self.path):
                self._connection = await self._new_connection()

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _new_connection(self) -> sqlite3.Connection:
        if self.path != ":memory:":
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            await self._switch_to_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """The first switch by several openers fails at once, busy timeout or not: try until the timeout."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._busy_timeout_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if clock() >= deadline:
                    raise
                await asyncio.sleep(0.02)
            else:
                return

    def _deadline(self) -> float:
        return time.monotonic() + self._busy_timeout_seconds

    async def _read(self, work: Callable[[sqlite3.Connection], T], deadline: float) -> T:
        with sqlite_errors(self.path):
            return work(self._in_turn(deadline))

    async def _write(self, work: Callable[[sqlite3.Connection], T], deadline: float) -> T:
        with sqlite_errors(self.path):
            connection = self._in_turn(deadline)
            _roll_back(connection)  # where an earlier one failed
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the first error says more; the next write tries again
                    _roll_back(connection)
                raise
            return result

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreUnavailableError(f"SQLite file {self.path} is not open here: it was closed, or never opened")
        return self._connection

    def _in_turn(self, deadline: float) -> sqlite3.Connection:
        """The connection, with what is left of the caller's time as its busy timeout."""
        connection, left = self._opened(), deadline - time.monotonic()
        if left <= 0:
            raise StoreUnavailableError(f"SQLite file {self.path} is busy: no turn in {self._busy_timeout_seconds} s")
        connection.execute(f"PRAGMA busy_timeout = {max(1, int(left * 1000))}")
        return connection


def _roll_back(connection: sqlite3.Connection) -> None:
    """SQLite ends some failed transactions by itself (disk full, I/O error), but not a COMMIT that was refused."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
