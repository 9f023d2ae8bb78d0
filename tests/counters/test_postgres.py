"""What only PostgreSQL can get wrong: a row that is written while it is folded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from deerflow_replica.counters import PostgresModelCounters
from waiting import eventually

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, %s) > 0"


class Interrupted(PostgresModelCounters):
    """Something happens after it has read what to fold."""

    between: Callable[[], Awaitable[object]] | None = None

    async def _write_base(self, connection: Any, sums: Any) -> None:
        if self.between is not None:
            await self.between()
        await super()._write_base(connection, sums)


async def test_a_row_that_changes_while_it_is_folded_loses_nothing(postgres_dsn: str, postgres_schema: str) -> None:
    place: Any = {"schema": postgres_schema, "flush_interval_seconds": 3600}

    def is_waiting() -> bool:
        with psycopg.connect(postgres_dsn) as connection:
            return connection.execute(WAITING, [postgres_schema]).fetchone() != (0,)

    async with (
        Interrupted(postgres_dsn, **place) as counters,
        PostgresModelCounters(postgres_dsn, **place) as living,
    ):
        living.record("m", "success")
        await living.flush()
        living.record("m", "success")
        writing = threading.Thread(target=living.flush_sync)

        async def write_now() -> None:
            writing.start()
            await eventually(lambda: not writing.is_alive() or is_waiting())

        counters.between = write_now
        assert await counters.compact(dead_after_seconds=0) == 1
        await asyncio.to_thread(writing.join)
        assert (await counters.totals())["m"].call_count == 2
