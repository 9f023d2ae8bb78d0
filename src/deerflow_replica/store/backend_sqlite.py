"""The store's hooks on an SQLite file."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import orjson

from .._drivers.sqlite import SqliteDatabase
from .._drivers.statements import load_statements
from .._sync import AnyLoopLock
from ..errors import ConfigError, StoreUnavailableError
from . import listing
from .backend import Backend
from .conditions import AllOf, holds
from .embedding import Embedder
from .prefilter import demanded_scalars
from .ranking import MEASURES, packed, unpacked
from .times import from_micros, to_micros
from .values import Conflict, Count, Get, ListNamespaces, OnConflict, Place, Read, Restored, Row, Search, Write, Written

T = TypeVar("T")

_SCHEMA_VERSION = 1


class StoreFile:
    """The database of one store: opened by its first backend, closed with the store, whose loops may be gone then."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.database = database
        self.pid = os.getpid()
        self._is_open = False
        self._lock = AnyLoopLock()

    async def open(self) -> None:
        async with self._lock:
            if not self._is_open:
                await self.database.open()
                self._is_open = True

    async def close(self) -> None:
        async with self._lock:
            if self._is_open and self.pid == os.getpid():
                self._is_open = False
                await self.database.close()


class SqliteBackend(Backend):
    """All of it runs on the thread of the one connection, so a hook is a function from start to end."""

    def __init__(self, file: StoreFile, embedder: Embedder | None) -> None:
        self._file = file
        self._database = file.database
        self._question = Question(embedder.distance if embedder else "cosine")
        self._dims = embedder.dims if embedder else None
        self._sql = _statements(self._question)

    async def open(self) -> None:
        await self._file.open()
        await self._database.read(self._question.register)

    async def close(self) -> None:
        """The store closes the file."""

    async def set_up(self, *, create_schema: bool) -> None:
        if not await self._database.read(self._is_set_up):
            await self._database.write(self._create)

    async def run(self, reads: Sequence[Read], writes: Sequence[Write], *, live: bool) -> list[Any]:
        def work(connection: sqlite3.Connection) -> list[Any]:
            moment = {"live": live, "now": _now()}
            answers = [self._answer(connection, read, moment) for read in reads]
            if writes:
                self._apply(connection, writes, moment)
            return answers

        return await self._asked(work, writes=bool(writes))

    async def write_if(self, write: Write, *, live: bool) -> Written | Conflict:
        def work(connection: sqlite3.Connection) -> Written | Conflict:
            moment = {"live": live, "now": _now()}
            current = self._one(connection, "current", write.place._asdict() | moment)
            if current != write.if_version:
                return Conflict(current)
            return next(iter(self._apply(connection, [write], moment)), Written(0))

        return await self._asked(work)

    async def touch(self, places: Sequence[Place]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            now = {"now": _now()}
            connection.executemany(self._sql["touch"], [place._asdict() | now for place in places])

        await self._asked(work)

    async def delete_namespace(self, prefix: str, *, live: bool) -> int:
        def work(connection: sqlite3.Connection) -> int:
            deleted = connection.execute(self._sql["delete_namespace"], {"prefix": prefix, "live": live, "now": _now()})
            return sum(counts for (counts,) in deleted)

        return await self._asked(work)

    async def sweep(self, limit: int) -> int | None:
        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(self._sql["sweep"], {"now": _now(), "limit": limit}).rowcount

        return await self._asked(work)

    async def restore(self, items: Sequence[Restored], *, on_conflict: OnConflict) -> int:
        def work(connection: sqlite3.Connection) -> int:
            hows = [_restored(item) | {"on_conflict": on_conflict} for item in items]
            return len(self._store(connection, "restore", [item.write for item in items], hows))

        return await self._asked(work)

    async def _asked(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        try:
            return await (self._database.write(work) if writes else self._database.read(work))
        except StoreUnavailableError as error:
            if not str(error.__cause__).startswith("no such table: store_"):
                raise
            raise ConfigError(f"SQLite file {self._database.path} has no store: call setup() once") from error

    def _answer(self, connection: sqlite3.Connection, read: Read, moment: dict[str, Any]) -> Any:
        match read:
            case Get(place):
                found = connection.execute(self._sql["get"], place._asdict() | moment).fetchone()
                return None if found is None else _row(found)
            case Search():
                return self._found(connection, read, moment)
            case Count(prefix, condition):
                return self._one(connection, *self._asking("count", prefix, condition), moment)
            case ListNamespaces():
                parameters = {"prefix": listing.first_labels(read)} | moment
                return listing.page((name for (name,) in connection.execute(self._sql["namespaces"], parameters)), read)

    def _found(self, connection: sqlite3.Connection, search: Search, moment: dict[str, Any]) -> list[Row]:
        if not search.limit:
            return []
        self._question.vector = search.vector
        statement = "page" if search.vector is None else "ranked_page"
        name, asked = self._asking(statement, search.prefix, search.condition)
        rows = connection.execute(self._sql[name], asked | moment | {"limit": search.limit, "offset": search.offset})
        return [_row(row) for row in rows]

    def _asking(self, statement: str, prefix: str, condition: AllOf) -> tuple[str, dict[str, Any]]:
        self._question.condition = condition
        texts = [orjson.dumps({name: scalar})[1:-1].decode() for name, scalar in demanded_scalars(condition)]
        asked = {
            "prefix": prefix,
            "is_filtered": bool(condition.conditions),
            "text": max(texts, key=len, default=None),  # documents are written by the same rules
        }
        return statement if prefix else f"{statement}_of_all", asked

    def _apply(self, connection: sqlite3.Connection, writes: Sequence[Write], moment: dict[str, Any]) -> list[Written]:
        """What the puts wrote."""
        puts = [write for write in writes if write.document is not None]
        deletes = [write.place._asdict() for write in writes if write.document is None]
        connection.executemany(self._sql["delete"], deletes)
        hows = [{"ttl": put.ttl, "keeps_ttl": put.keeps_ttl} | moment for put in puts]
        return self._store(connection, "put", puts, hows)

    def _store(
        self, connection: sqlite3.Connection, statement: str, writes: Sequence[Write], hows: Sequence[dict[str, Any]]
    ) -> list[Written]:
        """What the statement has written, each with a version of its own."""
        if not writes:
            return []
        stored = []
        last = self._one(connection, "take_versions", {"count": len(writes)})
        for version, write, how in zip(range(last - len(writes) + 1, last + 1), writes, hows, strict=True):
            document = (write.document or b"").decode()
            parameters = write.place._asdict() | {"document": document, "version": version} | how
            for item, *written in connection.execute(self._sql[statement], parameters).fetchall():
                stored.append(_written(*written))
                if self._dims is not None:
                    self._replace_vectors(connection, item, write)
        return stored

    def _replace_vectors(self, connection: sqlite3.Connection, item: int, write: Write) -> None:
        connection.execute(self._sql["drop_vectors"], {"item": item})
        vectors = [{"item": item, "path": path, "vector": packed(vector)} for path, vector in write.vectors]
        connection.executemany(self._sql["add_vector"], vectors)

    def _is_set_up(self, connection: sqlite3.Connection) -> bool:
        """Raises `ConfigError` for what must not be touched."""
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'store_about'")
        if found.fetchone() is None:
            return False
        schema = self._one(connection, "about", {"name": "schema"})
        if schema > _SCHEMA_VERSION:
            raise ConfigError(f"the store in {self._database.path} was written by a newer version of this package")
        dims = self._one(connection, "about", {"name": "dims"})
        if self._dims is not None and dims and dims != self._dims:
            raise ConfigError(f"index.dims is {self._dims}, but the vectors in {self._database.path} have {dims}")
        return schema == _SCHEMA_VERSION and (self._dims is None or bool(dims))

    def _create(self, connection: sqlite3.Connection) -> None:
        if self._is_set_up(connection):
            return
        for statement in load_statements("deerflow_replica.store", "sql/sqlite/schema.sql").values():
            connection.execute(statement)
        connection.execute("INSERT INTO store_about VALUES ('version', 0) ON CONFLICT DO NOTHING")
        connection.execute(self._sql["note"], {"name": "schema", "number": _SCHEMA_VERSION})
        if self._dims is not None:
            connection.execute(self._sql["note"], {"name": "dims", "number": self._dims})

    def _one(self, connection: sqlite3.Connection, name: str, *parameters: dict[str, Any]) -> int:
        """A statement's one number; 0 when it has none."""
        asked: dict[str, Any] = {}
        for one in parameters:
            asked |= one
        found = connection.execute(self._sql[name], asked).fetchone()
        return 0 if found is None else int(found[0])


class Question:
    """What a search asks of each document and vector, as functions that its SQL calls.

    Each backend has names of its own for them: backends may share a connection.
    """

    condition: AllOf
    vector: tuple[float, ...] | None

    def __init__(self, distance: str) -> None:
        self.matches = f"store_matches_{id(self):x}"
        self.score = f"store_score_{id(self):x}"
        self._measure = MEASURES[distance]

    def register(self, connection: sqlite3.Connection) -> None:
        connection.create_function(self.matches, 1, self._matches)
        connection.create_function(self.score, 1, self._score)

    def _matches(self, document: str) -> bool:
        return holds(self.condition, orjson.loads(document))

    def _score(self, vector: bytes | None) -> float | None:
        return None if vector is None or self.vector is None else self._measure(self.vector, unpacked(vector))


def _statements(question: Question) -> dict[str, str]:
    """Those with a condition twice: below a prefix and, `..._of_all`, without one."""
    functions = {"matches": question.matches, "score": question.score}
    sql = load_statements("deerflow_replica.store", "sql/sqlite/statements.sql", **functions)
    found, below = sql["found"], sql["below"]
    statements = {name: text.replace("{found}", found).replace("{below}", below) for name, text in sql.items()}
    for name in ("page", "ranked_page", "count"):
        statements[f"{name}_of_all"] = sql[name].replace("{found}", found).replace("{below}", "true")
    return statements


def _row(found: Iterable[Any]) -> Row:
    namespace, key, document, version, created_at, updated_at, has_ttl, *score = found
    return Row(
        namespace, key, document, version, from_micros(created_at), from_micros(updated_at), bool(has_ttl), *score
    )


def _written(version: int, created_at: int, updated_at: int) -> Written:
    return Written(version, from_micros(created_at), from_micros(updated_at))


def _restored(item: Restored) -> dict[str, Any]:
    return {
        "created_at": to_micros(item.created_at),
        "updated_at": to_micros(item.updated_at),
        "ttl": item.write.ttl,
        "expires_at": None if item.expires_at is None else to_micros(item.expires_at),
    }


def _now() -> int:
    return time.time_ns() // 1000
