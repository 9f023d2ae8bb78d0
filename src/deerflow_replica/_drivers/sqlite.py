"""SQLite through the standard library: one connection on a thread of its own, and sqlite3's errors as ours."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from .._sync import LoopThread
from ..errors import StoreUnavailableError

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


class SqliteDatabase:
    """One WAL connection on a private thread, usable from any loop and thread, safe between processes.

    `read` and `write` run a function of the connection there; `write` in one BEGIN IMMEDIATE transaction (a deferred
    one that is upgraded fails with "database is locked"). Parts that share a file share one of these: each calls
    `open` and `close`, the first opens and the last closes. `":memory:"` is private to the object.
    """

    def __init__(self, path: str | Path, *, busy_timeout_seconds: float = 10.0) -> None:
        self.path = str(path)
        self._busy_timeout_seconds = busy_timeout_seconds
        self._users = 0
        self._lock = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None
        self.runner = LoopThread("deerflow-replica-sqlite")

    async def open(self) -> None:
        """Open the file, with the folders above it; raises `StoreUnavailableError`. Counted, as `close` is."""
        try:
            await self.runner.acall(self._open())
        except BaseException:
            await self._release_thread()
            raise

    async def close(self) -> None:
        """Close the file and its thread when the last user closes."""
        if self._users:
            await self.runner.acall(self._close())
        await self._release_thread()

    async def touch(self) -> None:
        """Find out whether the file can be used; leaves it, in WAL mode, and nothing open."""
        await self.open()
        await self.close()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self.runner.acall(self._read(work))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self.runner.acall(self._write(work))

    def read_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self.runner.call(self._read(work))

    def write_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return self.runner.call(self._write(work))

    async def set_up(self, statements: list[str]) -> None:
        """Run idempotent DDL in one transaction."""

        def work(connection: sqlite3.Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self.write(work)

    async def _open(self) -> None:
        async with self._lock:
            if self._users == 0:
                with sqlite_errors(self.path):
                    self._connection = await self._connect()
            self._users += 1

    async def _connect(self) -> sqlite3.Connection:
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

    async def _close(self) -> None:
        async with self._lock:
            self._users -= 1
            if self._users == 0 and self._connection is not None:
                self._connection.close()
                self._connection = None

    async def _release_thread(self) -> None:
        if self._users == 0:
            await asyncio.to_thread(self.runner.close)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with sqlite_errors(self.path):
            return work(self._opened())

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with sqlite_errors(self.path):
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            return result

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreUnavailableError(f"SQLite file {self.path} is not open here: it was closed, or never opened")
        return self._connection
