"""The thread map says of a thread what the registry says, in whatever order it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.replica import open_replica
from deerflow_replica.runs.mirror import ThreadMirror
from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.runs.registry.records import NewRun, RunOutcome, ThreadHead
from deerflow_replica.threads import ANY_USER, InMemoryThreadMap, SqliteThreadMap, ThreadMap
from waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def registry() -> AsyncIterator[InMemoryRunRegistry]:
    async with InMemoryRunRegistry() as opened:
        yield opened


@pytest.fixture
async def threads() -> AsyncIterator[InMemoryThreadMap]:
    async with InMemoryThreadMap() as opened:
        yield opened


async def _seen(threads: ThreadMap, thread_id: str = "t") -> tuple[str, Any, str | None]:
    record = await threads.get(thread_id, user_id=ANY_USER)
    assert record is not None
    return record.status, dict(record.metadata), record.assistant_id


async def test_status_metadata_and_assistant_are_copied(
    registry: InMemoryRunRegistry, threads: InMemoryThreadMap
) -> None:
    mirror = ThreadMirror(registry, threads)
    await threads.claim("t", "u", metadata={"title": "kept", "n": 0})
    run = NewRun(run_id="r", thread_id="t", owner="o", user_id="u", thread_metadata={"n": 1, "assistant_id": "a"})
    admission = await registry.admit(run, lease_seconds=60)
    await mirror.mirror("t")
    assert await _seen(threads) == ("busy", {"title": "kept", "n": 1, "assistant_id": "a"}, "a")
    await registry.finish(admission.lease, RunOutcome("error", "error", error={"error": "E", "message": "m"}))
    await mirror.mirror("t")
    assert (await _seen(threads))[0] == "error"


class Lagging(InMemoryRunRegistry):
    """Its first answer about a thread arrives late."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.arrives = asyncio.Event(), asyncio.Event()

    async def get_thread_head(self, thread_id: str) -> ThreadHead | None:
        head, is_first = await super().get_thread_head(thread_id), not self.asked.is_set()
        self.asked.set()
        if is_first:
            await self.arrives.wait()
        return head


async def test_who_mirrors_what_is_past_notices_it(threads: InMemoryThreadMap) -> None:
    async with Lagging() as registry:
        await threads.claim("t", "u")
        await registry.create_thread("t", user_id="u", metadata={"n": 1})
        slow = asyncio.ensure_future(ThreadMirror(registry, threads).mirror("t"))
        await registry.asked.wait()
        await registry.update_thread("t", metadata={"n": 2})
        await ThreadMirror(registry, threads).mirror("t")
        registry.arrives.set()
        await slow
        assert (await _seen(threads))[1] == {"n": 2}


@pytest.mark.parametrize("fields", [{"user_id": None}, {"user_id": "u", "hidden": True}], ids=["nobody's", "hidden"])
async def test_what_must_not_be_found_is_not_copied(
    registry: InMemoryRunRegistry, threads: InMemoryThreadMap, fields: dict[str, Any]
) -> None:
    await threads.claim("t", "u")
    await registry.create_thread("t", metadata={"n": 1}, **fields)
    await ThreadMirror(registry, threads).mirror("t")
    assert await _seen(threads) == ("idle", {}, None)


async def test_a_thread_that_is_not_in_the_map_stays_out(
    registry: InMemoryRunRegistry, threads: InMemoryThreadMap
) -> None:
    await registry.create_thread("t", user_id="u")
    mirror = ThreadMirror(registry, threads)
    for thread_id in ("t", "unknown"):
        await mirror.mirror(thread_id)
        assert await threads.owner_of(thread_id) is None


async def test_a_map_that_is_away_is_told_later(registry: InMemoryRunRegistry, tmp_path: Path) -> None:
    threads = SqliteThreadMap(tmp_path / "threads.db")  # not open yet
    await registry.create_thread("t", user_id="u", metadata={"n": 1})
    mirror = ThreadMirror(registry, threads)
    await mirror.mirror("t")
    async with threads:
        await threads.claim("t", "u")
        await mirror.retry()
        assert (await _seen(threads))[1] == {"n": 1}


async def test_a_run_that_was_ended_by_a_replica_that_is_gone_is_seen_as_ended() -> None:
    config = {"database": {"backend": "memory"}, "gateway": {"lease_seconds": 1}}
    async with open_replica(AppConfig.from_mapping(config)) as replica:
        await replica.threads.claim("t", "u")
        run = NewRun(run_id="r", thread_id="t", owner="gone", user_id="u")
        admission = await replica.runs.admit(run, lease_seconds=0.01)
        await replica.runs.finish(admission.lease, RunOutcome("error", "error", error={"error": "E", "message": "m"}))
        await eventually(lambda: replica.threads.count("u", status="error"))


async def test_metadata_that_the_map_cannot_keep_does_not_keep_the_status_from_it(
    registry: InMemoryRunRegistry, threads: InMemoryThreadMap
) -> None:
    await threads.claim("t", "u")
    large = {"large": "x" * 70_000}
    await registry.admit(
        NewRun(run_id="r", thread_id="t", owner="o", user_id="u", thread_metadata=large), lease_seconds=60
    )
    await ThreadMirror(registry, threads).mirror("t")
    assert await _seen(threads) == ("busy", {}, None)
