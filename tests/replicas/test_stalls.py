"""Runs are cancelled while a server answers nothing: at once where it can be, and in the end everywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deerflow_replica.config import AppConfig
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.runs.request import Run
from proxy import CuttingProxy, cutting_proxy
from replicas.processes import Settings, everything
from runs.graphs import State, steps
from runs.managing import became
from waiting import eventually

CONNECT_SECONDS = 4.5  # less than a bridge gives a server that does not answer, for which nobody waits here
pytestmark = [pytest.mark.anyio, pytest.mark.faults]


class Watched:
    """A graph that waits for ever, and says when it was stopped."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.stopped = asyncio.Event()
        self.graph: Any = steps(self.wait)

    async def wait(self, state: State) -> State:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()
        return {}


@asynccontextmanager
async def executing(settings: Settings, watched: Watched) -> AsyncIterator[tuple[Replica, Run]]:
    async with open_replica(AppConfig.from_mapping(settings)) as replica:
        run = await replica.start_run(watched.graph, {}, thread_id="t", user_id="u")
        await watched.began.wait()
        await eventually(lambda: replica.bridge.stream_exists(run.run_id))
        yield replica, run


def through(proxy: CuttingProxy, dsn: str) -> str:
    return make_conninfo(dsn, host="127.0.0.1", port=urlsplit(proxy.url).port)


def postgres_target(dsn: str) -> str:
    server = conninfo_to_dict(dsn)
    host, port = str(server.get("host") or "127.0.0.1"), server.get("port") or 5432
    return f"unix://{host}/.s.PGSQL.{port}" if host.startswith("/") else f"redis://{host}:{port}"


async def test_cancel_while_the_executors_stream_server_stalls(settings: Settings, replica: Replica) -> None:
    settings["gateway"]["lease_seconds"] = 9.0
    async with cutting_proxy(settings["stream_bridge"]["redis_url"]) as proxy:
        far = {**settings, "stream_bridge": {**settings["stream_bridge"], "redis_url": proxy.url}}
        watched = Watched()
        async with executing(far, watched) as (executor, run):
            proxy.flows.clear()
            await executor.bridge.publish(run.run_id, "custom", "not stored for now")
            assert await replica.runs.cancel(run.run_id)
            async with asyncio.timeout(60):  # no hint: the next renewal
                await watched.stopped.wait()
            record = await replica.runs.get(run.run_id)
            assert record is not None
            assert record.status == "running"  # until its events are stored
            proxy.flows.set()
            await became(replica.runs, run.run_id, "interrupted")
            assert "error" not in [event.event for event in await everything(replica, run.run_id)]


async def test_cancel_by_a_replica_whose_stream_server_stalls(settings: Settings, replica: Replica) -> None:
    settings["gateway"]["lease_seconds"] = 6.0
    async with cutting_proxy(settings["stream_bridge"]["redis_url"]) as proxy:
        far = {**settings, "stream_bridge": {**settings["stream_bridge"], "redis_url": proxy.url}}
        watched = Watched()
        async with executing(settings, watched) as (_, run), open_replica(AppConfig.from_mapping(far)) as canceller:
            proxy.flows.clear()
            asked = time.monotonic()
            assert await canceller.runs.cancel(run.run_id)
            assert time.monotonic() - asked < CONNECT_SECONDS
            await became(replica.runs, run.run_id, "interrupted")
            proxy.flows.set()


async def test_cancel_while_the_executors_database_stalls(
    settings: Settings, replica: Replica, postgres_dsn: str
) -> None:
    settings["gateway"]["lease_seconds"] = 60.0
    async with cutting_proxy(postgres_target(postgres_dsn)) as proxy:
        url = through(proxy, postgres_dsn)
        far = {**settings, "database": {**settings["database"], "postgres_url": url}}
        watched = Watched()
        async with executing(far, watched) as (_, run):
            proxy.flows.clear()
            asked = time.monotonic()
            assert await replica.runs.cancel(run.run_id)
            await watched.stopped.wait()
            assert time.monotonic() - asked < 15  # the hint, and not the next renewal
            proxy.flows.set()
            await became(replica.runs, run.run_id, "interrupted")
            assert await run.wait() == "interrupted"


async def test_run_whose_database_stalls_for_too_long_is_given_up(
    settings: Settings, replica: Replica, postgres_dsn: str
) -> None:
    async with cutting_proxy(postgres_target(postgres_dsn)) as proxy:
        url = through(proxy, postgres_dsn)
        far = {**settings, "database": {**settings["database"], "postgres_url": url}}
        watched = Watched()
        async with executing(far, watched) as (_, run):
            proxy.flows.clear()
            assert await replica.runs.cancel(run.run_id, action="rollback")
            events = await everything(replica, run.run_id)
            assert "error" not in [event.event for event in events]
            assert await replica.bridge.end_reason(run.run_id) == "cancelled"
            assert await replica.runs.get(run.run_id) is None
            proxy.flows.set()
            await run.wait()
            thread = await replica.runs.get_thread("t")
            assert thread is not None
            assert thread.status == "idle"
