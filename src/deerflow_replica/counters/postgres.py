"""Model counters in PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._drivers.postgres import PostgresDatabase, exclusive
from .._drivers.statements import load_statements, quoted
from .._extras import extra
from ._circuit import Circuit, StoredCircuit, circuit_from
from ._counts import Counts, add
from ._fleet import (
    ABANDONED_SECONDS,
    BASE,
    FOLDED_KEPT_SECONDS,
    StoredRow,
    Vote,
    dump,
    restored,
    storable,
    unfolded,
    vote_counts,
)
from ._ledger import BUCKET_SECONDS, Snapshot, oldest_bucket
from .base import ModelCounters

with extra("postgres"):
    from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from .._drivers.postgres import Connection, Pool

_ROWS_AT_ONCE = 1000
_LONGEST_INTERVAL_SECONDS = 1e9


class PostgresModelCounters(ModelCounters):
    """Counters in a PostgreSQL database, shared by every replica.

    Pass either `dsn`, or a `pool` of psycopg's that stays yours. `schema` is created when it is missing; None means
    the connection's own. `table` names the table of counts; votes go into `{table}_votes`, the models' circuits into
    `{table}_circuits`.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        pool: Pool | None = None,
        schema: str | None = None,
        table: str = "model_usage_stats",
        _database: PostgresDatabase | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self._database = _database or PostgresDatabase(dsn, pool=pool)
        self._runner = self._database.runner
        self._lock_name = f"deerflow_replica:counters:{schema or ''}:{table}"
        self._parts = [*(["schema"] if schema else []), "rows", "votes", "votes_index", "circuits"]
        self._sql = load_statements(
            "deerflow_replica.counters",
            "sql/postgres.sql",
            schema=quoted(schema) if schema else "",
            rows=quoted(schema, table),
            votes=quoted(schema, f"{table}_votes"),
            votes_index=quoted(f"{table}_votes_sums"),
            circuits=quoted(schema, f"{table}_circuits"),
        )

    async def _open(self) -> None:
        await self._database.open()
        try:
            await self._database.set_up(self._lock_name, [self._sql[f"create_{part}"] for part in self._parts])
        except BaseException:
            await self._database.close()
            raise

    async def _shut(self) -> None:
        await self._database.close()

    async def _write(self, snapshot: Snapshot) -> None:
        values = {
            "boot_id": self._boot_id,
            "number": snapshot.number,
            "oldest": oldest_bucket(time.time())
            - 10,  # of rows that are dropped none may be written by the same statement
            "buckets": [row.bucket for row in snapshot.rows],
            "names": [storable(row.model_name) for row in snapshot.rows],
            "counts": [dump(row.counts) for row in snapshot.rows],
        }
        await self._database.execute(lambda connection: self._changed(connection, "write", values))

    async def _read_rows(self, first_bucket: int, last_bucket: int) -> list[StoredRow]:
        span = {"first": first_bucket, "last": last_bucket}
        return _stored(await self._database.execute(lambda connection: self._fetched(connection, "read", span)))

    async def _read_votes(self) -> list[StoredRow]:
        rows = await self._database.execute(lambda connection: self._fetched(connection, "read_votes", {}))
        return [StoredRow(BASE, restored(name), vote_counts(*sums)) for name, *sums in rows]

    async def _vote(self, vote: Vote) -> bool:
        values = {
            "vote": vote.key,
            "thread_id": storable(vote.thread_id),
            "run_id": storable(vote.run_id),
            "user_id": storable(vote.user_id),
            "model_name": storable(vote.model_name),
            "sentiment": vote.sentiment,
        }
        statement = "unvote" if vote.sentiment is None else "vote"
        return await self._database.execute(lambda connection: self._changed(connection, statement, values)) > 0

    async def _fold(self, dead_after_seconds: float) -> int:
        dead_after = min(dead_after_seconds, _LONGEST_INTERVAL_SECONDS)
        folded = batch = await self._database.execute(lambda connection: self._fold_batch(connection, dead_after))
        while batch == _ROWS_AT_ONCE:
            batch = await self._database.execute(lambda connection: self._fold_batch(connection, dead_after))
            folded += batch
        await self._database.execute(self._drop_old)
        return folded

    async def _read_circuits(self) -> tuple[float, dict[str, StoredCircuit]]:
        rows = await self._database.execute(lambda connection: self._fetched(connection, "circuits", {}))
        return rows[0][0], {
            restored(name): StoredCircuit(version, circuit_from(circuit))
            for _, name, version, circuit in rows
            if name is not None
        }

    async def _swap_circuit(self, model_name: str, version: int, circuit: Circuit) -> bool:
        values = {"model_name": storable(model_name), "version": version, "circuit": circuit.dump()}
        return await self._database.execute(lambda connection: self._changed(connection, "swap_circuit", values)) > 0

    async def _fold_batch(self, connection: Connection, dead_after: float) -> int:
        async with exclusive(connection, self._lock_name):
            limits = {"dead_after": dead_after, "most": _ROWS_AT_ONCE}
            dead = _stored(await self._fetched(connection, "dead", limits))
            if dead:
                names = sorted({storable(row.model_name) for row in dead})
                base = _stored(await self._fetched(connection, "base", {"names": names}))
                await self._write_base(connection, _sums([*base, *dead]))
                keys = {"boots": [row.boot_id for row in dead], "names": [storable(row.model_name) for row in dead]}
                await self._changed(connection, "mark_folded", keys)
            return len(dead)

    async def _write_base(self, connection: Connection, sums: dict[str, Counts]) -> None:
        values = {"names": [storable(name) for name in sums], "counts": [dump(counts) for counts in sums.values()]}
        await self._changed(connection, "write_base", values)

    async def _drop_old(self, connection: Connection) -> None:
        async with exclusive(connection, self._lock_name):
            await self._changed(connection, "drop_folded", {"kept": FOLDED_KEPT_SECONDS})
            abandoned = int(time.time() - ABANDONED_SECONDS) // BUCKET_SECONDS
            await self._changed(connection, "drop_buckets", {"abandoned": abandoned})

    async def _changed(self, connection: Connection, statement: str, values: dict[str, Any]) -> int:
        return (await connection.execute(self._sql[statement].encode(), values)).rowcount

    async def _fetched(self, connection: Connection, statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """As tuples, whatever a borrowed pool makes of its rows."""
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(self._sql[statement].encode(), values)
            return await cursor.fetchall()


def _stored(rows: Iterable[tuple[Any, ...]]) -> list[StoredRow]:
    return [StoredRow(boot_id, restored(name), counts, folded or {}) for boot_id, name, counts, folded in rows]


def _sums(rows: Iterable[StoredRow]) -> dict[str, Counts]:
    sums: dict[str, Counts] = {}
    for row in rows:
        add(sums.setdefault(row.model_name, {}), unfolded(row))
    return dict(sorted(sums.items()))
