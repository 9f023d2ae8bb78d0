"""Model counters in an SQLite file: for the processes of one machine."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from .._drivers.sqlite import SqliteDatabase
from .._drivers.statements import load_statements, quoted
from ._circuit import Circuit, StoredCircuit, circuit_of
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

_PARTS = ("rows", "votes", "votes_index", "circuits")


class SqliteModelCounters(ModelCounters):
    """Counters in the file `path`, shared by every process that opens it.

    `table` names the table of counts; votes go into `{table}_votes`, the models' circuits into `{table}_circuits`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        table: str = "model_usage_stats",
        _database: SqliteDatabase | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self._database = _database or SqliteDatabase(path)
        self._runner = self._database.runner
        votes = f"{table}_votes"
        self._sql = load_statements(
            "deerflow_replica.counters",
            "sql/sqlite.sql",
            rows=quoted(table),
            votes=quoted(votes),
            votes_index=quoted(f"{votes}_sums"),
            circuits=quoted(f"{table}_circuits"),
        )

    async def _open(self) -> None:
        await self._database.open()
        try:
            await self._database.set_up([self._sql[f"create_{part}"] for part in _PARTS])
        except BaseException:
            await self._database.close()
            raise

    async def _shut(self) -> None:
        await self._database.close()

    async def _write(self, snapshot: Snapshot) -> None:
        now = time.time()
        mine = {"boot_id": self._boot_id, "number": snapshot.number, "now": now}
        rows = [
            {**mine, "bucket": row.bucket, "model_name": storable(row.model_name), "counts": dump(row.counts)}
            for row in snapshot.rows
        ]
        oldest = oldest_bucket(now)

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(self._sql["write"], rows)
            connection.execute(self._sql["drop_own_buckets"], {"oldest": oldest, "boot_id": self._boot_id})

        await self._database.write(work)

    async def _read_rows(self, first_bucket: int, last_bucket: int) -> list[StoredRow]:
        span = {"first": first_bucket, "last": last_bucket}
        return await self._database.read(lambda connection: _stored(connection.execute(self._sql["read"], span)))

    async def _read_votes(self) -> list[StoredRow]:
        return await self._database.read(
            lambda connection: [
                StoredRow(BASE, restored(name), vote_counts(*sums))
                for name, *sums in connection.execute(self._sql["read_votes"])
            ]
        )

    async def _vote(self, vote: Vote) -> bool:
        statement = self._sql["unvote" if vote.sentiment is None else "vote"]
        values = {
            "vote": vote.key,
            "thread_id": storable(vote.thread_id),
            "run_id": storable(vote.run_id),
            "user_id": storable(vote.user_id),
            "model_name": storable(vote.model_name),
            "sentiment": vote.sentiment,
            "now": time.time(),
        }
        return await self._database.write(lambda connection: connection.execute(statement, values).rowcount > 0)

    async def _fold(self, dead_after_seconds: float) -> int:
        now = time.time()

        def work(connection: sqlite3.Connection) -> int:
            dead = _stored(connection.execute(self._sql["dead"], {"dead": now - dead_after_seconds}))
            for row in dead:
                self._fold_row(connection, row, now)
            connection.execute(self._sql["drop_folded"], {"forgotten": now - FOLDED_KEPT_SECONDS})
            connection.execute(self._sql["drop_buckets"], {"abandoned": int(now - ABANDONED_SECONDS) // BUCKET_SECONDS})
            return len(dead)

        return await self._database.write(work)

    async def _read_circuits(self) -> tuple[float, dict[str, StoredCircuit]]:
        rows = await self._database.read(lambda connection: connection.execute(self._sql["circuits"]).fetchall())
        return time.time(), {
            restored(name): StoredCircuit(version, circuit_of(circuit)) for name, version, circuit in rows
        }

    async def _swap_circuit(self, model_name: str, version: int, circuit: Circuit) -> bool:
        values = {"model_name": storable(model_name), "version": version, "circuit": circuit.dump()}
        return await self._database.write(
            lambda connection: connection.execute(self._sql["swap_circuit"], values).rowcount > 0
        )

    def _fold_row(self, connection: sqlite3.Connection, row: StoredRow, now: float) -> None:
        key = {"model_name": storable(row.model_name), "now": now}
        found = connection.execute(self._sql["base"], key).fetchone()
        counts: Counts = json.loads(found[0]) if found else {}
        add(counts, unfolded(row))
        connection.execute(self._sql["write_base"], {**key, "counts": dump(counts)})
        connection.execute(self._sql["mark_folded"], {**key, "boot_id": row.boot_id})


def _stored(cursor: sqlite3.Cursor) -> list[StoredRow]:
    return [
        StoredRow(boot_id, restored(name), json.loads(counts), json.loads(folded) if folded else {})
        for boot_id, name, counts, folded in cursor
    ]
