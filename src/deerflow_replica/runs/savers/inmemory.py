"""The dictionaries of `InMemorySaver`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langgraph.checkpoint.memory import InMemorySaver

    from ..footprint import Found


class InMemoryTables:
    def __init__(self, saver: InMemorySaver) -> None:
        self._saver = saver

    def errors(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def heads_before(self, thread_id: str, run_id: str) -> list[tuple[str, str]]:
        heads = []
        for checkpoint_ns, checkpoints in self._saver.storage.get(thread_id, {}).items():
            parents = {saved[2] for saved in checkpoints.values() if self._run_of(saved) == run_id}
            head = max((key for key, saved in checkpoints.items() if self._run_of(saved) != run_id), default=None)
            if head in parents and head is not None:
                heads.append((checkpoint_ns, head))
        return heads

    async def is_built_upon(self, thread_id: str, run_id: str) -> bool:
        return any(
            saved[2] in checkpoints and self._run_of(checkpoints[saved[2]]) == run_id
            for checkpoints in self._saver.storage.get(thread_id, {}).values()
            for saved in checkpoints.values()
            if self._run_of(saved) != run_id and "counters_since_delta_snapshot" in self._metadata_of(saved)
        )

    async def delete_run(self, thread_id: str, run_id: str, touched: Iterable[Found]) -> None:
        for checkpoint_ns, checkpoints in list(self._saver.storage.get(thread_id, {}).items()):
            for checkpoint_id in [key for key, saved in checkpoints.items() if self._run_of(saved) == run_id]:
                del checkpoints[checkpoint_id]
                self._saver.writes.pop((thread_id, checkpoint_ns, checkpoint_id), None)
        for found in touched:
            self._keep_writes(thread_id, found)

    async def copy_thread(self, source_id: str, target_id: str) -> None:
        saver = self._saver
        for checkpoint_ns, checkpoints in saver.storage.get(source_id, {}).items():
            saver.storage[target_id][checkpoint_ns] = dict(checkpoints)
        for thread_id, checkpoint_ns, checkpoint_id in list(saver.writes):
            if thread_id == source_id:
                writes = saver.writes[thread_id, checkpoint_ns, checkpoint_id]
                saver.writes[target_id, checkpoint_ns, checkpoint_id] = dict(writes)
        for (thread_id, checkpoint_ns, channel, version), blob in list(saver.blobs.items()):
            if thread_id == source_id:
                saver.blobs[target_id, checkpoint_ns, channel, version] = blob

    def _run_of(self, saved: tuple[Any, ...]) -> object:
        return self._metadata_of(saved).get("run_id")

    def _metadata_of(self, saved: tuple[Any, ...]) -> Mapping[str, Any]:
        metadata: Mapping[str, Any] = self._saver.serde.loads_typed(saved[1])
        return metadata

    def _keep_writes(self, thread_id: str, found: Found) -> None:
        place = (thread_id, found.checkpoint_ns, found.checkpoint_id)
        keys = set(found.keys)
        writes = self._saver.writes.get(place, {})
        self._saver.writes[place] = {key: write for key, write in writes.items() if (write[0], write[1]) in keys}
