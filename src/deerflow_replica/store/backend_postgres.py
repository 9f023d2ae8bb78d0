"""`PostgresStore` as one event loop reaches it: a pool on that loop, and few fixed statements in one round trip."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from .._drivers.direct_postgres import Rows
from .._drivers.kept_postgres import Answer, KeptConnections
from .._drivers.pipelined_postgres import Statement, fetched
from .._drivers.postgres import COLLIDED, connected_pool, is_lost
from .._drivers.texts_postgres import Texts
from .._extras import extra
from ..errors import ConfigError, StoreUnavailableError
from .backend import Backend
from .reads_postgres import Reads
from .setup_postgres import about, check, not_set_up, set_up
from .sql_postgres import Dialect, Statements, vector_text
from .values import (
    Conflict,
    OnConflict,
    Place,
    Read,
    Restored,
    Write,
    Written,
)

with extra("postgres"):
    import psycopg

if TYPE_CHECKING:
    from .._drivers.postgres import Connection, Pool

T = TypeVar("T")

_MOST_SLOTS = 4
_MOST_ATTEMPTS = 64
_FEW_VECTORS = 2_000  # are compared one by one: exactly, and fast enough
_WALKING_SINCE = (0, 8)  # pgvector's iterative scans


class PostgresBackend(Backend):
    """Opens a pool from `dsn`, or borrows `pool`, which then stays open."""

    def __init__(
        self,
        dialect: Dialect,
        *,
        dsn: str | None,
        pool: Pool | None,
        min_size: int,
        max_size: int,
        prepare_threshold: int | None,
        timeout_seconds: float,
    ) -> None:
        self._dialect = dialect
        self._dsn = dsn
        self._pool = pool
        self._owns_pool = pool is None
        self._min_size = min_size
        self._max_size = max_size
        self._prepare_threshold = prepare_threshold
        self._timeout_seconds = timeout_seconds
        self._connections: KeptConnections | None = None
        self._statements: Statements | None = None
        self._walks = False
        self.slots = max(1, min(_MOST_SLOTS, max_size))

    async def open(self) -> None:
        if self._pool is None:
            self._pool = await connected_pool(
                self._dsn or "",
                min_size=self._min_size,
                max_size=self._max_size,
                timeout_seconds=self._timeout_seconds,
                prepare_threshold=self._prepare_threshold,
            )
        self._connections = KeptConnections(self._pool, timeout_seconds=self._timeout_seconds, keeps=self._owns_pool)

    async def close(self) -> None:
        if self._connections is not None:
            connections, self._connections = self._connections, None
            await connections.close()
        if self._pool is not None and self._owns_pool:
            pool, self._pool = self._pool, None
            await pool.close()

    async def set_up(self, *, create_schema: bool) -> None:
        await self._execute(lambda connection: set_up(connection, self._dialect, create_schema=create_schema))

    async def run(self, reads: Sequence[Read], writes: Sequence[Write], *, live: bool) -> list[Any]:
        statements = await self._known()
        asking = Reads(statements, reads, live=live, walks=self._walks)
        asked = asking.asked + self._writes(statements, writes, live) if writes else asking.asked
        return asking.answers(await self._execute(lambda connection: fetched(connection, asked)))

    def begin(
        self,
        reads: Sequence[Read],
        writes: Sequence[Write],
        *,
        live: bool,
        done: Callable[[list[Any] | StoreUnavailableError | None], None],
    ) -> bool:
        if self._connections is None or self._statements is None or not self._connections.are_at_hand:
            return False
        asking = Reads(self._statements, reads, live=live, walks=self._walks)
        asked = asking.asked + self._writes(self._statements, writes, live) if writes else asking.asked
        return self._connections.begin(asked, lambda found: done(_answered(asking, found)))

    async def write_if(self, write: Write, *, live: bool) -> Written | Conflict:
        await self._known()
        while True:
            outcome = await self._write_known(write, live)
            # Created and deleted by others between two statements: it can be created after all.
            if isinstance(outcome, Written) or outcome.current != write.if_version:
                return outcome

    async def touch(self, places: Sequence[Place]) -> None:
        statements = await self._known()
        await self._fetch(statements.fixed("touch", **_at(places)))

    async def delete_namespace(self, prefix: str, *, live: bool) -> int:
        statements = await self._known()
        [(count,)] = await self._fetch(statements.fixed("delete_namespace", prefix=prefix, live=live))
        return int(count)

    async def sweep(self, limit: int) -> int | None:
        statements = await self._known()
        lock = f"deerflow_replica:{self._dialect.schema}:store:sweep"
        [(is_ours, count)] = await self._fetch(statements.fixed("sweep", lock=lock, limit=str(limit)))
        return int(count) if is_ours else None

    async def restore(self, items: Sequence[Restored], *, on_conflict: OnConflict) -> int:
        statements = await self._known()
        writes = {item.write.place: item.write for item in items}

        async def work(connection: Connection) -> int:
            async with connection.transaction():
                [stored] = await fetched(connection, [_restore(statements, items, on_conflict)])
                written = [writes[Place(*row)] for row in stored]
                await fetched(connection, self._derived(statements, written))
                return len(written)

        return await self._execute(work)

    def _writes(self, statements: Statements, writes: Sequence[Write], live: bool) -> list[Statement]:
        """All replicas take their locks in the one order of places, each in one statement."""
        puts = [write for write in writes if write.document is not None]
        deletes = [write.place for write in writes if write.document is None]
        if deletes and puts:
            # What is to be deleted is put first: a delete of its own would lock out of order, or miss what is new.
            asked = [statements.fixed("put", **_many(writes), live=live)]
        elif len(puts) == 1:
            asked = [statements.fixed("put_one", **_one(puts[0]), live=live)]
        else:
            asked = [statements.fixed("put", **_many(puts), live=live)] if puts else []
        if len(deletes) == 1:
            asked.append(statements.fixed("delete_one", **deletes[0]._asdict()))
        elif deletes:
            asked.append(statements.fixed("delete", **_at(deletes)))
        return asked + self._derived(statements, puts)

    def _derived(self, statements: Statements, puts: Sequence[Write]) -> list[Statement]:
        """Vectors and texts: all that the items had go, whatever they have now comes."""
        asked: list[Statement] = []
        if not puts or (self._dialect.embedder is None and self._dialect.text_index is None):
            return asked
        places = _at([write.place for write in puts])
        if self._dialect.embedder is not None:
            asked.append(statements.fixed("forget_vectors", **places))
            vectors = [(*write.place, path, vector_text(vector)) for write in puts for path, vector in write.vectors]
            if vectors:
                named = zip(
                    ("namespaces", "keys", "paths", "embeddings"), map(Texts, zip(*vectors, strict=True)), strict=True
                )
                asked.append(statements.fixed("add_vectors", **dict(named)))
        if self._dialect.text_index is not None:
            asked.append(statements.fixed("forget_texts", **places))
            texted = [write for write in puts if write.text is not None]
            if texted:
                texts = Texts(write.text for write in texted if write.text is not None)
                at = _at([write.place for write in texted])
                language = self._dialect.text_index.language
                asked.append(statements.fixed("add_texts", **at, texts=texts, language=language))
        return asked

    async def _write_known(self, write: Write, live: bool) -> Written | Conflict:
        """Repeated only when it is certain that no earlier attempt did anything."""
        lost: StoreUnavailableError | None = None
        for _ in range(_MOST_ATTEMPTS):
            try:
                outcome = await self._attempt(write, live)
            except StoreUnavailableError as error:
                lost = await self._loss(error, write, live) or lost
            else:
                if lost is not None and isinstance(outcome, Conflict):  # an earlier attempt may have arrived meanwhile
                    break
                return outcome
        raise lost or StoreUnavailableError("PostgreSQL is not available: others were faster too often")

    async def _loss(self, error: StoreUnavailableError, write: Write, live: bool) -> StoreUnavailableError | None:
        """The error of an attempt that may be repeated; None when it was rolled back for certain."""
        cause = error.__cause__
        if isinstance(cause, psycopg.OperationalError):
            if cause.sqlstate in COLLIDED:
                return None
            if is_lost(cause) and await self._current(write, live) == write.if_version:
                return error
        raise error

    async def _attempt(self, write: Write, live: bool) -> Written | Conflict:
        statements = self._statements_known()
        attempt, current = _conditional(statements, write, live), _current(statements, write, live)

        async def work(connection: Connection) -> Written | Conflict:
            derived = self._derived(statements, [write] if write.document is not None else [])
            if not derived:
                return _outcome(write, await fetched(connection, [attempt, current]))
            async with connection.transaction():
                outcome = _outcome(write, await fetched(connection, [attempt, current]))
                if isinstance(outcome, Written):
                    await fetched(connection, derived)
                return outcome

        return await self._execute(work, retry=False)

    async def _current(self, write: Write, live: bool) -> int:
        rows = await self._fetch(_current(self._statements_known(), write, live))
        return int(rows[0][0]) if rows else 0

    async def _known(self) -> Statements:
        """The statements, once the tables are known to be there."""
        if self._statements is None:
            noted = await self._execute(lambda connection: about(connection, self._dialect))
            check(noted, self._dialect)
            statements = Statements(self._dialect, noted.get("extension") or "public", few=_FEW_VECTORS)
            if statements.walks_index:
                self._walks = _version(await self._fetch(statements.fixed("extension_version"))) >= _WALKING_SINCE
            self._statements = statements
        return self._statements

    def _statements_known(self) -> Statements:
        assert self._statements is not None  # noqa: S101  # every hook begins with _known()
        return self._statements

    async def _fetch(self, statement: Statement) -> Rows:
        [rows] = await self._execute(lambda connection: fetched(connection, [statement]))
        return rows

    async def _execute(self, work: Callable[[Connection], Awaitable[T]], *, retry: bool = True) -> T:
        """With what the server says about the data, or about missing tables, in our words."""
        if self._connections is None:
            raise StoreUnavailableError("the store is closed")
        try:
            return await self._connections.run(work, retry=retry)
        except psycopg.Error as error:
            raise self._in_our_words(error) from error

    def _in_our_words(self, error: psycopg.Error) -> Exception:
        """What the server says about what it was given; that it is away has been told already."""
        if isinstance(error, (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)):
            return not_set_up(self._dialect.schema)
        said = str(error).splitlines()[0]
        if isinstance(error, (psycopg.errors.DuplicatePreparedStatement, psycopg.errors.InvalidSqlStatementName)):
            return ConfigError(f"a pooler stands before PostgreSQL, so prepare_threshold must be None: {said}")
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return ConfigError(f"PostgreSQL forbids it: {said}")
        if isinstance(error, (psycopg.DataError, psycopg.IntegrityError, psycopg.OperationalError)):
            return ValueError(f"PostgreSQL refuses it: {said}")
        return StoreUnavailableError(f"PostgreSQL failed: {said}")


def _answered(asking: Reads, found: Answer) -> list[Any] | StoreUnavailableError | None:
    if not isinstance(found, list):
        return found
    try:
        return asking.answers(found)
    except Exception:  # `run` meets it again where it can be raised
        return None


def _version(rows: Rows) -> tuple[int, ...]:
    return tuple(int(part) for part in str(rows[0][0]).split(".") if part.isdecimal()) if rows else ()


def _conditional(statements: Statements, write: Write, live: bool) -> Statement:
    expected = {"expected": str(write.if_version), "live": live}
    if write.document is None:
        return statements.fixed("remove", **write.place._asdict(), **expected)
    if write.if_version == 0:
        return statements.fixed("create", **_one(write), live=live)
    return statements.fixed("replace", **_one(write), **expected, keeps_ttl=write.keeps_ttl)


def _current(statements: Statements, write: Write, live: bool) -> Statement:
    return statements.fixed("current", **write.place._asdict(), live=live)


def _outcome(write: Write, found: Sequence[Rows]) -> Written | Conflict:
    attempted, current = found
    if attempted:
        version, created_at, updated_at = attempted[0]
        return Written(version, _utc(created_at), _utc(updated_at)) if write.document is not None else Written(0)
    version = current[0][0] if current else 0
    return Written(0) if write.document is None and version == write.if_version == 0 else Conflict(version)


def _restore(statements: Statements, items: Sequence[Restored], on_conflict: OnConflict) -> Statement:
    return statements.fixed(
        "restore",
        **_many([item.write for item in items]),
        created=[item.created_at.isoformat() for item in items],
        updated=[item.updated_at.isoformat() for item in items],
        expires=[item.expires_at.isoformat() if item.expires_at is not None else "" for item in items],
        on_conflict=on_conflict,
    )


def _at(places: Sequence[Place]) -> dict[str, Texts]:
    return {"namespaces": Texts(place.namespace for place in places), "keys": Texts(place.key for place in places)}


def _one(write: Write) -> dict[str, Any]:
    """Numbers as text, as in pages."""
    ttl = None if write.ttl is None else str(write.ttl)
    return {**write.place._asdict(), "document": (write.document or b"").decode(), "ttl": ttl}


def _many(writes: Sequence[Write]) -> dict[str, Texts]:
    return {
        **_at([write.place for write in writes]),
        "documents": Texts((write.document or b"{}").decode() for write in writes),
        "ttls": Texts("" if write.ttl is None else str(write.ttl) for write in writes),
    }


def _utc(stamp: datetime) -> datetime:
    return stamp.replace(tzinfo=UTC)
