"""What PostgresStore sends without a task: each caller hears of it, whatever happens, as it would from a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
from langgraph.store.base import GetOp, Op, PutOp, SearchOp
from psycopg.conninfo import make_conninfo

from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.store import PostgresStore
from waiting import eventually

pytestmark = pytest.mark.anyio

PLACE = (("a",), "k")
OTHER = (("b",), "k")


@pytest.fixture
async def store(postgres_dsn: str, postgres_schema: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(postgres_dsn, schema=postgres_schema, timeout_seconds=60) as store:
        await store.asetup()
        await store.aput(*PLACE, {"n": 0})
        yield store


@contextmanager
def locked(dsn: str, schema: str) -> Iterator[psycopg.Connection[Any]]:
    """All items that there are; until the connection rolls back."""
    with psycopg.connect(dsn) as connection:
        connection.execute(f"SELECT FROM {schema}.store_items FOR UPDATE".encode())
        yield connection


def _scheduler(store: PostgresStore) -> Any:
    engine = store._engines.here()
    assert engine is not None
    return engine.scheduler


async def direct(
    store: PostgresStore, call: Callable[[], Awaitable[Any]], *, timeout_seconds: float = 60.0
) -> asyncio.Task[Any]:
    """The call, under way without a task."""
    await store.aget(*OTHER)
    scheduler = _scheduler(store)
    connections = scheduler._backend._connections
    if connections._look is not None:
        connections._look.cancel()
    connections._look = scheduler._loop.call_later(3600, print)  # what is at hand stays there
    connections._timeout_seconds = timeout_seconds
    under_way = asyncio.ensure_future(call())
    for _ in range(10):  # turns of the loop: nothing comes back in the one in which it begins
        if not scheduler._under_way:
            await asyncio.sleep(0)
    assert scheduler._under_way
    assert not scheduler._tasks
    connections._timeout_seconds = 60.0
    return under_way


def waiting(dsn: str, schema: str) -> list[int]:
    """The connections that wait for a lock in a schema."""
    with psycopg.connect(dsn) as connection:
        asked = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        return [pid for (pid,) in connection.execute(asked, [f"%{schema}%"]).fetchall()]


def kill_waiting(dsn: str, schema: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT pg_terminate_backend(pid, 60000) FROM unnest(%s) AS pid", [waiting(dsn, schema)])


async def test_calls_take_no_task(store: PostgresStore) -> None:
    mixed: list[Op] = [
        GetOp(*PLACE),
        SearchOp(("a",)),
        PutOp(("c",), "k", {}),
        PutOp(("c",), "l", {}),
        PutOp(*OTHER, None),
    ]
    calls: list[Callable[[], Awaitable[Any]]] = [
        partial(store.aget, *PLACE),
        partial(store.aput, *PLACE, {"n": 1}),
        partial(store.asearch, ("a",)),
        partial(store.asearch, ()),
        partial(store.adelete, *OTHER),
        partial(store.abatch, mixed),
        partial(store.abatch, [GetOp(*PLACE), GetOp(*OTHER), SearchOp(("a",)), SearchOp(("c",)), SearchOp(())]),
    ]
    for call in calls:
        await (await direct(store, call))
    found: Any = await store.abatch([GetOp(*PLACE), SearchOp(("c",)), SearchOp(())])
    assert found[0].value == {"n": 1}
    assert [len(items) for items in found[1:]] == [2, 3]


async def test_what_the_server_refuses_fails_alone(
    store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {postgres_schema}.store_items ADD CHECK (key <> '7')".encode())
    puts = await direct(
        store,
        lambda: asyncio.gather(*(store.aput(("c",), str(n), {}) for n in range(10)), return_exceptions=True),
    )
    outcomes = await puts
    assert [place for place, outcome in enumerate(outcomes) if outcome is not None] == [7]
    assert isinstance(outcomes[7], ValueError)
    assert await store.acount(("c",)) == 9


async def test_what_cannot_be_read_fails_alone(store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    """An item of a year that Python has not."""
    await store.aput(*OTHER, {})
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            f"UPDATE {postgres_schema}.store_items SET created_at = '20000-1-1' WHERE namespace = 'b'".encode()
        )
    gets = (partial(store.aget, *PLACE), partial(store.aget, *OTHER), partial(store.aget, ("c",), "k"))
    for _ in range(3):
        outcomes: list[Any] = await asyncio.gather(*(get() for get in gets), return_exceptions=True)
        good, bad, none = outcomes
        assert good.value == {"n": 0}
        assert isinstance(bad, OverflowError)
        assert none is None


async def test_a_read_only_server(store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    dsn = make_conninfo(postgres_dsn, options="-c default_transaction_read_only=on")
    async with PostgresStore(dsn, schema=postgres_schema, timeout_seconds=60) as reader:
        for _ in range(3):
            assert await reader.aget(*PLACE) is not None
            with pytest.raises(StoreUnavailableError, match="read-only"):
                await reader.aput(*PLACE, {})


async def test_what_collides_is_repeated(store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    dsn = make_conninfo(postgres_dsn, options="-c default_transaction_isolation=serializable")
    async with PostgresStore(dsn, schema=postgres_schema, timeout_seconds=60) as strict:
        with locked(postgres_dsn, postgres_schema) as connection:
            put = await direct(strict, partial(strict.aput, *PLACE, {"n": 1}))
            await eventually(lambda: waiting(postgres_dsn, postgres_schema))
            connection.execute(f"UPDATE {postgres_schema}.store_items SET version = version".encode())
            connection.commit()
        await put
    item = await store.aget(*PLACE)
    assert item is not None
    assert item.value == {"n": 1}


async def test_a_killed_call_is_repeated_unless_nobody_waits(
    store: PostgresStore, postgres_dsn: str, postgres_schema: str
) -> None:
    for is_cancelled in (True, False):
        with locked(postgres_dsn, postgres_schema):
            put = await direct(store, partial(store.aput, *PLACE, {"n": 1}))
            await eventually(lambda: waiting(postgres_dsn, postgres_schema))
            if is_cancelled:
                put.cancel()
            await asyncio.to_thread(kill_waiting, postgres_dsn, postgres_schema)
            if is_cancelled:
                await eventually(lambda: not _scheduler(store)._under_way)
                assert not _scheduler(store)._tasks
        await asyncio.wait([put])
        item = await store.aget(*PLACE)
        assert item is not None
        assert item.value == {"n": 0 if is_cancelled else 1}


async def test_what_takes_too_long_holds_no_slot(store: PostgresStore, postgres_dsn: str, postgres_schema: str) -> None:
    scheduler = _scheduler(store)
    with locked(postgres_dsn, postgres_schema):
        for _ in range(scheduler._backend.slots + 1):
            put = await direct(store, partial(store.aput, *PLACE, {"n": 1}), timeout_seconds=0.05)
            with pytest.raises(StoreUnavailableError):
                await put
    assert not scheduler._under_way
    assert not scheduler._slots._busy_in_all
    await store.aput(*PLACE, {"n": 2})


async def test_closing_lets_a_call_finish(postgres_dsn: str, postgres_schema: str, store: PostgresStore) -> None:
    async with PostgresStore(postgres_dsn, schema=postgres_schema, timeout_seconds=60) as other:
        with locked(postgres_dsn, postgres_schema):
            put = await direct(other, partial(other.aput, *PLACE, {"n": 1}))
            await eventually(lambda: waiting(postgres_dsn, postgres_schema))
            closing = asyncio.ensure_future(other.aclose())
            await asyncio.sleep(0)
        await closing
        await put
    item = await store.aget(*PLACE)
    assert item is not None
    assert item.value == {"n": 1}


@pytest.mark.faults
async def test_closing_does_not_wait_for_ever(postgres_dsn: str, postgres_schema: str, store: PostgresStore) -> None:
    """Five seconds, and not as long as a call would, with a task or without; and what was closed opens no more."""
    stores = [PostgresStore(postgres_dsn, schema=postgres_schema, timeout_seconds=600) for _ in range(2)]
    with locked(postgres_dsn, postgres_schema):
        puts = [
            asyncio.ensure_future(stores[0].aput(*PLACE, {})),
            await direct(stores[1], partial(stores[1].aput, *PLACE, {})),
        ]
        await eventually(lambda: len(waiting(postgres_dsn, postgres_schema)) == 2)
        engines: Any = [store._engines.here() for store in stores]
        await asyncio.gather(*(store.aclose() for store in stores))
        for put in puts:
            with pytest.raises(StoreUnavailableError, match="closed"):
                await put
        for engine in engines:
            assert not engine.is_open
            assert not engine.scheduler._tasks
            assert not engine.scheduler._under_way
        await eventually(lambda: not waiting(postgres_dsn, postgres_schema))
    item = await store.aget(*PLACE)
    assert item is not None
    assert item.value == {"n": 0}


def test_a_loop_that_ends_in_the_midst(postgres_dsn: str, postgres_schema: str) -> None:
    store = PostgresStore(postgres_dsn, schema=postgres_schema, timeout_seconds=60)
    store.setup()
    store.put(*PLACE, {"n": 0})

    async def leave() -> None:
        await direct(store, partial(store.aput, *PLACE, {"n": 1}))
        await eventually(lambda: waiting(postgres_dsn, postgres_schema))

    with locked(postgres_dsn, postgres_schema):
        asyncio.run(leave())
        asyncio.run(store.aput(*OTHER, {}))
        kill_waiting(postgres_dsn, postgres_schema)
    item = store.get(*PLACE)
    store.close()
    assert item is not None
    assert item.value == {"n": 0}
