"""One pool for each PostgreSQL and schema, one client for each Redis; and how all are closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from psycopg.conninfo import make_conninfo
from redis.asyncio import Redis

from deerflow_replica.config import AppConfig
from deerflow_replica.errors import ReplicaError
from deerflow_replica.replica import open_replica
from deerflow_replica.stream import InMemoryStreamBridge
from waiting import eventually

pytestmark = pytest.mark.anyio
POOL = 3


class StuckStorage:
    """A memory of the deployer's own that cannot be closed."""

    def __init__(self, memory: Any) -> None:
        """Takes the section."""

    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        return {"facts": []}

    reload = load

    def save(self, memory_data: dict[str, Any], agent_name: str | None = None, *, user_id: str | None = None) -> bool:
        return True

    def close(self) -> None:
        raise RuntimeError("stuck")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        await client.ping()
        yield client


async def test_parts_share_their_connections(
    postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str, redis: Redis, tmp_path: Path
) -> None:
    mine = make_conninfo(postgres_dsn, application_name=postgres_schema)
    named = {"type": "postgres", "connection_string": mine, "postgres_schema": postgres_schema}
    config = AppConfig.from_mapping(
        {
            "database": {
                "backend": "postgres", "postgres_url": mine, "postgres_schema": postgres_schema, "pool_size": POOL
            },
            "checkpointer": named, "store": named, "user_thread_mapping": named, "model_feedback": named,
            "stream_bridge": {
                "type": "redis", "redis_url": redis_url, "key_prefix": key_prefix, "max_connections": POOL
            },
            "memory": {"backend_config": {"storage_path": str(tmp_path)}},
        }
    )  # fmt: skip

    def connections() -> int:
        with psycopg.connect(postgres_dsn) as connection:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            found = connection.execute(asked, [postgres_schema]).fetchone()
        return int(found[0]) if found else 0

    clients = len(await redis.client_list())
    async with open_replica(config) as replica:
        nothing: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        asked = (
            call
            for _ in range(30)
            for call in (
                replica.threads.owner_of("t"),
                replica.counters.totals(),
                replica.store.aget(("n",), "k"),
                replica.checkpointer.aget_tuple(nothing),
                replica.runs.get_thread("t"),
            )
        )
        await asyncio.gather(*asked)
        assert connections() <= 2 * POOL  # LangGraph's parts on this loop, ours on one of their own
        await asyncio.gather(*(replica.bridge.stream_exists("r") for _ in range(30)))
        assert len(await redis.client_list()) - clients <= POOL
    await eventually(lambda: connections() == 0, what="closing of every connection")

    async def none_of_ours() -> bool:
        return len(await redis.client_list()) <= clients  # those of before may have gone meanwhile

    await eventually(none_of_ours, what="closing of every connection to Redis")


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_a_part_that_cannot_be_closed_keeps_no_other_open(backend: str, tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    config = AppConfig.from_mapping(
        {
            "database": {"backend": backend, "sqlite_dir": str(tmp_path)},
            "memory": {"storage_class": f"{__name__}:StuckStorage"},
        }
    )
    opening = open_replica(config)
    replica = await opening.__aenter__()
    await replica.threads.owner_of("t")
    bridge = replica.bridge
    with pytest.raises(RuntimeError, match="stuck"):
        await opening.__aexit__(None, None, None)
    with pytest.raises(ReplicaError, match="closed"):
        await replica.check()
    assert isinstance(bridge, InMemoryStreamBridge)
    with pytest.raises(Exception, match="closed"):
        await bridge.publish("r", "values", {})

    def left() -> list[threading.Thread]:  # the loop's own executor threads are the loop's
        return [one for one in set(threading.enumerate()) - threads if not one.name.startswith("asyncio_")]

    await eventually(lambda: not left(), what="the last step of each thread")
