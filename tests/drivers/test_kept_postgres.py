"""Exchanges on connections that are cut, killed, closed or silent: whoever asked hears of it, and nothing leaks."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from deerflow_replica._drivers.postgres import connected_pool
from deerflow_replica.errors import StoreUnavailableError
from drivers.kept import Kept, kept_connections, nothing, planned, proxied
from waiting import eventually, eventually_sync

pytestmark = pytest.mark.anyio

PID = "SELECT pg_backend_pid()"
LARGE = "x" * 4_000_000


@pytest.fixture
async def kept(postgres_dsn: str) -> AsyncIterator[Kept]:
    async with kept_connections(postgres_dsn) as kept:
        yield kept


def _asked(dsn: str, question: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Of the server, by somebody else."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(question.encode(), parameters).fetchall()


def _active(dsn: str, pid: int) -> list[tuple[Any, ...]]:
    return _asked(dsn, "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'", pid)


async def _is_whole(kept: Kept) -> None:
    """The pool's only connection is not lost."""
    assert await kept.value("SELECT 1") == 1


@pytest.mark.faults
async def test_a_cut_at_any_byte_of_a_reply(postgres_dsn: str) -> None:
    """None of them is taken for an answer, and all of them are heard of."""
    statements = (planned("SELECT 'a'::text, 1"), planned("SELECT 'b'::text"))
    async with proxied(postgres_dsn) as (proxy, dsn), kept_connections(dsn) as kept:
        length = 0
        while True:
            assert await kept.ask() == []
            [link] = proxy.links
            link.replies_left = length
            answer = await kept.ask(*statements)
            if answer is not None:
                break
            length += 1
        assert answer == [[("a", 1)], [("b",)]]
        assert length > 100


async def test_a_connection_killed_before_and_in_the_midst(kept: Kept, postgres_dsn: str) -> None:
    pid = await kept.value(PID)
    assert _asked(postgres_dsn, "SELECT pg_terminate_backend(%s, 60000)", pid) == [(True,)]
    assert await kept.ask(planned("SELECT 1"), planned("SELECT 2")) is None
    pid = await kept.value(PID)
    answer = await kept.begun(planned("SELECT 1"), planned("SELECT pg_sleep(600)"))
    await eventually(lambda: _active(postgres_dsn, pid))
    assert _asked(postgres_dsn, "SELECT pg_terminate_backend(%s, 60000)", pid) == [(True,)]
    assert await answer is None
    await _is_whole(kept)


async def test_a_cut_while_something_large_is_sent(postgres_dsn: str) -> None:
    """The socket is then readable and writable at once, and libpq closes it."""
    async with proxied(postgres_dsn) as (proxy, dsn), kept_connections(dsn) as kept:
        for _ in range(3):
            await kept.run(nothing)
            proxy.flows.clear()
            answer = await kept.begun(planned("SELECT %(text)s", text=LARGE), planned("SELECT 1"))
            await eventually(lambda: any(link.seen.endswith(b"xxx") for link in proxy.links))
            proxy.cut()
            proxy.flows.set()
            assert await answer is None
            await _is_whole(kept)


async def test_a_server_that_does_not_answer_in_time(kept: Kept, postgres_dsn: str) -> None:
    """That is the end, also in the server."""
    pid = await kept.value(PID)
    with kept.patience(0.05):
        error = await kept.ask(planned("SELECT pg_sleep(600)"))
    assert isinstance(error, StoreUnavailableError)
    assert isinstance(error.__cause__, TimeoutError)
    await eventually(lambda: not _active(postgres_dsn, pid))
    await _is_whole(kept)


async def test_something_large_that_nobody_takes(postgres_dsn: str) -> None:
    async with proxied(postgres_dsn) as (proxy, dsn), kept_connections(dsn) as kept:
        await kept.run(nothing)
        proxy.flows.clear()
        with kept.patience(0.05):
            assert isinstance(await kept.ask(planned("SELECT %(text)s", text=LARGE)), StoreUnavailableError)
        proxy.flows.set()
        await _is_whole(kept)


async def test_closing_ends_an_exchange(postgres_dsn: str) -> None:
    async with kept_connections(postgres_dsn) as kept:
        pid = await kept.value(PID)
        answer = await kept.begun(planned("SELECT pg_sleep(600)"))
        await eventually(lambda: _active(postgres_dsn, pid))
        await kept.close()
        assert await answer is None
        await eventually(lambda: not _active(postgres_dsn, pid))
        await _is_whole(kept)


async def test_whoever_hears_of_it_may_fail(kept: Kept) -> None:
    """The connection has already been given back."""

    def fail(answer: Any) -> None:
        raise ArithmeticError

    told: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    try:
        pid = await kept.value(PID)
        assert kept.begin([planned("SELECT 1")], fail)
        await eventually(lambda: told)
        assert await kept.value(PID) == pid
    finally:
        loop.set_exception_handler(None)


async def test_waiting_for_what_goes_back_may_be_cancelled(postgres_dsn: str) -> None:
    """What goes back does so nevertheless."""
    async with proxied(postgres_dsn) as (proxy, dsn), kept_connections(dsn) as kept:
        for _ in range(2):
            await kept.run(nothing)
            proxy.flows.clear()  # a request to cancel is not answered then
            await kept.begun(planned("SELECT 1"))
            closing = asyncio.create_task(kept.close())
            await eventually(lambda: len(proxy.links) > 1)
            closing.cancel()
            await asyncio.wait([closing])
            proxy.flows.set()
            await _is_whole(kept)


def test_a_loop_that_ends_in_the_midst(postgres_dsn: str) -> None:
    """Nobody waits, nobody is told, and what it left ends with the connection."""
    told: list[Any] = []
    mark = f"SELECT pg_sleep(600), '{uuid.uuid4().hex}'"

    async def leave() -> None:
        kept = Kept(await connected_pool(postgres_dsn, max_size=1, timeout_seconds=60), timeout_seconds=60)
        await kept.run(nothing)
        assert kept.begin([planned(mark)], told.append)

    asyncio.run(leave())
    gc.collect()
    assert not told
    # A server notices that a client is gone when it has something to say.
    asked = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = %s"
    eventually_sync(lambda: not _asked(postgres_dsn, asked, mark))
