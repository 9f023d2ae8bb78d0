"""The thread map in PostgreSQL, for any number of replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .._drivers.postgres import PostgresDatabase
from .._drivers.statements import quoted
from .base import ThreadMap
from .paging import Filters, Query
from .rules import Inserted, NewThread, Outcome, Row, Rule
from .sql import page_parameters, row_parameters, statements_of
from .validation import MAX_MICROSECONDS

if TYPE_CHECKING:
    from .._drivers.postgres import Connection, Pool

T = TypeVar("T")


class PostgresThreadMap(ThreadMap):
    """A `ThreadMap` in one table of a PostgreSQL database. The clock is the server's.

    Pass a `dsn`, or a `pool` of autocommit connections, which is borrowed and never closed. A `schema` that does not
    exist is created; None: the connection's search path. A connection found dead is replaced and the call repeated;
    a repeated claim, update, transfer or delete recognises that its first attempt had arrived.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: Pool | None = None,
        schema: str | None = None,
        table: str = "user_thread_mappings",
        tenant: str = "default",
        ttl_seconds: float | None = None,
        tombstone_seconds: float = 2_592_000.0,
        operation_timeout_seconds: float = 10.0,
        _database: PostgresDatabase | None = None,
    ) -> None:
        super().__init__(
            tenant=tenant,
            ttl_seconds=ttl_seconds,
            tombstone_seconds=tombstone_seconds,
            operation_timeout_seconds=operation_timeout_seconds,
        )
        self._statements = statements_of("postgres.sql", table, schema)
        self._schema = schema
        self._lock_name = f"deerflow_replica:{schema or ''}:{table}"
        self._database = _database or PostgresDatabase(dsn, pool=pool, timeout_seconds=self._timeout_seconds)
        self.runner = self._database.runner

    async def _open(self) -> None:
        await self._database.open()
        try:
            await self._database.set_up(self._lock_name, [*_create_schema(self._schema), *self._statements.set_up])
        except BaseException:
            await self._database.close()
            raise

    async def _close(self) -> None:
        await self._database.close()

    async def _read(self, keys: Sequence[str]) -> tuple[int, dict[str, Row]]:
        if len(keys) == 1:  # without an array: planned and sent in less time
            found = await self._fetch("read_one", {"key": keys[0]})
        else:
            found = await self._fetch("read", {"keys": list(keys)})
        return found[0][0] if found else 0, {values[1]: Row(*values[1:]) for values in found}

    async def _owners(self, keys: Sequence[str]) -> dict[str, str]:
        name = "owner" if len(keys) == 1 else "owners"
        found = await self._fetch(name, {"key": keys[0]} if len(keys) == 1 else {"keys": list(keys)})
        return {key: owner for key, owner in found if owner is not None}

    async def _insert(self, keys: Sequence[str], new: NewThread) -> Inserted:
        # Sorted, so that two inserts of many rows wait for each other in one direction only.
        found = await self._fetch("claim", _claimed(sorted(keys), new))
        return Inserted(found[0][1] if found else 0, {key for key, _ in found})

    async def _read_or_insert(self, keys: Sequence[str], new: NewThread) -> tuple[int, dict[str, Row], Inserted]:
        if len(keys) == 1:  # mostly one's own, which a plain look finds in less time
            return await super()._read_or_insert(keys, new)
        answered = await self._fetch("claim_many", _claimed(keys, new))
        now = answered[0][0] if answered else 0
        rows = {values[2]: Row(*values[2:]) for values in answered if not values[1]}
        return now, rows, Inserted(now, {values[2] for values in answered if values[1]})

    async def _change(self, key: str, rule: Rule[T]) -> T:
        async def work(connection: Connection) -> T:
            while True:
                async with connection.transaction():
                    now, row = await self._locked(connection, key)
                    outcome = rule(now, row)
                    if await self._store(connection, row, outcome):
                        return outcome.answer

        return await self._database.execute(work)

    async def _remove(self, key: str, change: str) -> None:
        parameters = {"tenant": self._tenant, "thread_id": key, "change": change}
        await self._database.execute(lambda connection: connection.execute(self._sql("remove"), parameters))

    async def _page(self, query: Query) -> list[Row]:
        ids = None if query.filters.ids is None else sorted(query.filters.ids)
        parameters = page_parameters(self._tenant, query) | {"ids": ids}
        statement = self._statements.pages[query.sort_by, query.sort_order]

        async def work(connection: Connection) -> list[Row]:
            cursor = await connection.execute(statement.encode(), parameters)
            return [Row(*values) for values in await cursor.fetchall()]

        return await self._database.execute(work)

    async def _count(self, user_id: str, filters: Filters) -> int:
        asked = {"user_id": user_id, "status": filters.status, "metadata": filters.metadata}
        [(count,)] = await self._fetch("count", asked)
        return int(count)

    async def _sweep(self, limit: int, change: str) -> int:
        parameters = {"tenant": self._tenant, "limit": limit, "change": change, "tombstone": self._tombstone}

        async def work(connection: Connection) -> int:
            buried = await connection.execute(self._sql("bury_expired"), parameters)
            await connection.execute(self._sql("drop_tombstones"), parameters)
            return buried.rowcount

        return await self._database.execute(work, retry=False)  # run twice, it would count what it no longer finds

    async def _locked(self, connection: Connection, key: str) -> tuple[int, Row | None]:
        cursor = await connection.execute(self._sql("read_locked"), {"tenant": self._tenant, "key": key})
        [(now, *values)] = await cursor.fetchall()
        return now, None if values[0] is None else Row(*values)

    async def _store(self, connection: Connection, row: Row | None, outcome: Outcome[T]) -> bool:
        """False when another replica inserted the row after it was found missing."""
        if outcome.row is not None and row is None:
            inserted = await connection.execute(self._sql("insert"), row_parameters(self._tenant, outcome.row))
            return inserted.rowcount == 1
        if outcome.row is not None:
            await connection.execute(self._sql("replace"), row_parameters(self._tenant, outcome.row))
        return True

    async def _fetch(self, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async def work(connection: Connection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(self._sql(name), {"tenant": self._tenant, **parameters})
            return await cursor.fetchall()

        return await self._database.execute(work)

    def _sql(self, name: str) -> bytes:
        return self._statements.by_name[name].encode()


def _claimed(keys: Sequence[str], new: NewThread) -> dict[str, Any]:
    return {**new._asdict(), "keys": list(keys), "latest": MAX_MICROSECONDS}


def _create_schema(schema: str | None) -> list[str]:
    """Only when it is missing: `IF NOT EXISTS` asks for the right to create schemas even when it does nothing."""
    if not schema:
        return []
    name = quoted(schema)
    return [f"DO $$ BEGIN IF to_regnamespace('{name}') IS NULL THEN CREATE SCHEMA {name}; END IF; END $$"]
