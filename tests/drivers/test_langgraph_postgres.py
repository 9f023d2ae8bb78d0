"""The pool of LangGraph's saver."""

from __future__ import annotations

import pytest

from deerflow_replica._drivers.langgraph_postgres import open_pool

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1.5, 1500), (5e8, 2**31 - 1)])
async def test_a_transaction_may_be_idle_for_a_time_that_the_server_takes(
    seconds: float, milliseconds: int, postgres_dsn: str
) -> None:
    async with (
        open_pool(postgres_dsn, None, max_size=2, timeout_seconds=30, idle_seconds=seconds) as pool,
        pool.connection() as connection,
    ):
        cursor = await connection.execute(
            "SELECT setting::int AS set FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'"
        )
        assert await cursor.fetchone() == {"set": milliseconds}
