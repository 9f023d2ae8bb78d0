"""What still happens while a replica is left: runs go on in their grace, also those that waited; nothing begins."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deerflow_replica.config import AppConfig
from deerflow_replica.errors import ReplicaError, StoreUnavailableError
from deerflow_replica.replica import open_replica
from runs.graphs import State, steps, two

pytestmark = pytest.mark.anyio


async def test_a_run_that_begins_in_the_grace_has_its_replica() -> None:
    opened = asyncio.Event()

    async def hold(state: State) -> State:
        await opened.wait()
        return {}

    async def use(state: State) -> State:
        replica.context(thread_id="t")
        replica.middleware()
        with pytest.raises(ReplicaError, match="closed"):
            await replica.start_run(steps(two), {}, thread_id="new", user_id="u")
        assert await replica.threads.owner_of("new") is None
        return {}

    async with open_replica(AppConfig.from_mapping({"database": {"backend": "memory"}})) as replica:
        first = await replica.start_run(steps(hold), {}, thread_id="t")
        second = await replica.start_run(steps(use), {}, thread_id="t")
        asyncio.get_running_loop().call_later(0.05, opened.set)
    assert (first.status, second.status) == ("success", "success")
    with pytest.raises(ReplicaError, match="closed"):
        replica.context(thread_id="t")


async def test_a_stream_that_is_left_early_leaves_nothing_open() -> None:
    async with open_replica(AppConfig.from_mapping({"database": {"backend": "memory"}})) as replica:
        events = replica.stream_run(steps(two), {}, thread_id="t")
        await anext(events)
        await events.aclose()
        assert replica.bridge.stats().subscribers == 0


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
async def test_what_langgraph_keeps_says_closed_as_ours_does(
    backend: str, tmp_path: Path, postgres_dsn: str, postgres_schema: str
) -> None:
    postgres = {"postgres_url": postgres_dsn, "postgres_schema": postgres_schema} if backend == "postgres" else {}
    config = AppConfig.from_mapping({"database": {"backend": backend, "sqlite_dir": str(tmp_path), **postgres}})
    async with open_replica(config) as replica:
        checkpointer, store = replica.checkpointer, replica.store
    with pytest.raises(StoreUnavailableError, match="closed"):
        await checkpointer.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.aget(("a",), "k")
