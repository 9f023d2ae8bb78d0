"""The database goes away and comes back: nothing is lost, nothing counts twice, no model call fails."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from deerflow_replica._drivers.embedded import EmbeddedPostgres
from deerflow_replica._drivers.postgres import PostgresDatabase
from deerflow_replica._drivers.sqlite import SqliteDatabase
from deerflow_replica.counters import ModelCounters, ModelHealth, PostgresModelCounters, SqliteModelCounters
from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.middleware import ModelCounterMiddleware
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.testing._counters_common import VOTER
from waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

INPUT = {"messages": [("user", "hi")]}


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedPostgres]:
    """One that may be killed."""
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture
def server(own_server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS model_usage_stats, model_usage_stats_votes, model_usage_stats_circuits"
        )
    yield own_server
    own_server.start()


def build(server: EmbeddedPostgres, **common: Any) -> ModelCounters:
    """One that does not wait long for a server that is away."""
    return PostgresModelCounters(_database=PostgresDatabase(server.dsn, timeout_seconds=2), **common)


@pytest.fixture
async def counters(server: EmbeddedPostgres) -> AsyncIterator[ModelCounters]:
    counters = build(server, flush_interval_seconds=0.1)
    await counters.setup()
    yield counters
    server.start()
    await counters.close()


def end_all_connections(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


async def stored_calls(server: EmbeddedPostgres) -> int:
    async with PostgresModelCounters(server.dsn) as sibling:
        totals = (await sibling.totals()).get("m")
        return totals.call_count if totals else 0


async def test_what_is_counted_meanwhile_is_written_later_by_itself(
    server: EmbeddedPostgres, counters: ModelCounters, caplog: pytest.LogCaptureFixture
) -> None:
    counters.record("m", "success")
    await counters.flush()
    server.kill()
    counters.record("m", "failure")
    outcomes = await asyncio.gather(
        *[call() for call in (counters.flush, counters.totals, counters.window, counters.list_rows, counters.compact)],
        counters.add_feedback("m", "positive", **VOTER),
        asyncio.to_thread(counters.flush_sync),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 7
    assert counters.local_totals()["m"].call_count == 2
    server.start()

    async def written() -> Any:
        return await stored_calls(server) == 2

    await eventually(written)
    warned = [record for record in caplog.records if "kept and tried again" in record.message]
    assert len(warned) <= 1


async def test_an_ended_connection_is_not_even_noticed(server: EmbeddedPostgres, counters: ModelCounters) -> None:
    for number in range(1, 6):
        counters.record("m", "success")
        end_all_connections(server)
        await counters.flush()
        assert await stored_calls(server) == number
        end_all_connections(server)
        assert (await counters.totals())["m"].call_count == number


async def test_no_model_call_fails_in_either_durability(server: EmbeddedPostgres, counters: ModelCounters) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("one"), AIMessage("two"), AIMessage("three")]), name="m")
    async with build(server, durability="sync") as waiting:
        server.kill()
        for each, answer in ((counters, "one"), (waiting, "two")):
            agent: Any = create_agent(model, [], middleware=[ModelCounterMiddleware(each)])
            assert (await agent.ainvoke(INPUT))["messages"][-1].content == answer
        assert (await asyncio.to_thread(agent.invoke, INPUT))["messages"][-1].content == "three"
        with pytest.raises(StoreUnavailableError):
            await waiting.arecord("m", "success")
        server.start()
        await asyncio.gather(waiting.flush(), counters.flush())
        assert await stored_calls(server) == 4


async def test_health_goes_by_what_is_seen_here_until_the_store_is_back(
    server: EmbeddedPostgres, counters: ModelCounters
) -> None:
    health = ModelHealth(counters, failure_threshold=2, open_seconds=0.2, jitter=0, refresh_seconds=0.1)
    await health.refresh()
    server.kill()
    for _ in range(2):
        counters.record("m", "failure", error_type="transient")
    assert health.state("m").state != "closed"
    permit = await eventually(lambda: health.acquire("m"))
    assert permit.probe
    assert await health.acquire("m") is None
    assert (await health.choose(["m", "n"])).model_name == "n"
    await health.release(permit, "failure")
    assert health.state("m").opened_count == 2
    permit = await eventually(lambda: health.acquire("m"))
    await health.release(permit, "success")
    assert await health.acquire("m") is not None
    counters.record("m", "failure", error_type="auth")
    server.start()
    async with build(server) as sibling:
        other = ModelHealth(sibling, refresh_seconds=0.1)
        await eventually(lambda: other.state("m").reason == "auth")


async def test_a_close_without_the_store_says_what_is_lost(
    server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    counters = build(server, flush_interval_seconds=3600)
    await counters.setup()
    counters.record("m", "success")
    await counters.flush()
    server.kill()
    for _ in range(3):
        counters.record("m", "success")
    with caplog.at_level(logging.ERROR), pytest.raises(StoreUnavailableError):
        await counters.close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "3 events of model counters are lost"
    ]
    await counters.close()
    server.start()
    assert await stored_calls(server) == 1


async def test_a_server_that_was_never_there_is_an_error_of_setup() -> None:
    with pytest.raises(StoreUnavailableError):
        await PostgresModelCounters("postgresql://nobody@127.0.0.1:1/none").setup()


async def test_many_who_wait_for_one_flush_fail_together(tmp_path: Path) -> None:
    async def fail_together(seconds: float) -> bool:
        path = tmp_path / f"counters{seconds}.db"
        database = SqliteDatabase(path, busy_timeout_seconds=seconds)
        async with SqliteModelCounters(path, _database=database, durability="sync") as counters:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                began = time.monotonic()
                calls = [counters.arecord("m", "success") for _ in range(8)]
                errors = await asyncio.gather(*calls, return_exceptions=True)
                took = time.monotonic() - began
                other.execute("ROLLBACK")
            assert all(isinstance(error, StoreUnavailableError) for error in errors)
            await counters.flush()
            assert (await counters.totals())["m"].call_count == 8
        return took < 4 * seconds

    assert await for_one_of((0.5, 2.0, 8.0), fail_together)
