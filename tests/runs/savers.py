"""LangGraph's savers, opened as a replica does, and others that know less or more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

Saver = BaseCheckpointSaver[Any]


@asynccontextmanager
async def sqlite_saver(folder: Path) -> AsyncIterator[Saver]:
    from deerflow_replica._drivers.langgraph_sqlite import open_saver

    async with open_saver(str(folder / "checkpoints.db"), timeout_seconds=5) as saver:
        yield saver


@asynccontextmanager
async def postgres_saver(dsn: str, schema: str) -> AsyncIterator[Saver]:
    from deerflow_replica._drivers.langgraph_postgres import open_pool, saver_on

    async with open_pool(dsn, schema, max_size=3, timeout_seconds=5, idle_seconds=5) as pool:
        yield await saver_on(pool, dsn)


class PlainSaver(BaseCheckpointSaver[str]):
    """A saver of somebody's own: it has what a graph needs, and cannot delete but whole threads."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = InMemorySaver()

    async def aget_tuple(self, config: Any) -> Any:
        return await self._inner.aget_tuple(config)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[Any]:
        async for saved in self._inner.alist(config, **options):
            yield saved

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        return await self._inner.aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        await self._inner.aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await self._inner.adelete_thread(thread_id)

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self._inner.get_next_version(current, channel)


class CapableSaver(PlainSaver):
    """One that deletes and copies by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, ...]] = []

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        self.asked.append(tuple(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self.asked.append((source_thread_id, target_thread_id))
