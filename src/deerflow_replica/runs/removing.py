"""Runs and threads, deleted whatever they do: what runs is stopped first, wherever it executes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ReplicaError, StoreUnavailableError
from .checkpoints import delete_run_checkpoints, saver_errors
from .registry.records import RunOutcome, RunRecord, RunStatus
from .registry.rules import UNFINISHED, is_terminal
from .workplace import Workplace

_LOG = logging.getLogger(__name__)
_LOOK_AGAIN_SECONDS = 0.05


@dataclass
class Remover:
    """Deletes from the registry and the checkpointer. What is left of a failed attempt goes with the next one."""

    place: Workplace

    async def delete_run(self, run_id: str) -> bool:
        """Delete a run with its checkpoints; one that is not over is rolled back. False: unknown.

        Returns once its stream has its end. `StoreUnavailableError`: it does not end.
        """
        registry, deadline = self.place.registry, self._deadline()
        record = await registry.get(run_id)
        if record is None:
            return False
        if not is_terminal(record.status):
            await registry.cancel(run_id, action="rollback")
        while (current := await registry.get(run_id)) is not None:
            if is_terminal(current.status) and await self._delete_over(current):
                return True
            await _look_again(deadline, f"run {run_id!r}")
        while await self.place.bridge.end_reason(run_id) is None:
            await _look_again(deadline, f"run {run_id!r}")
        return True

    async def delete_thread(self, thread_id: str) -> bool:
        """Delete a thread with its runs and checkpoints. False: there was no row.

        Returns once the streams of its runs have their ends. `StoreUnavailableError`: they do not end.
        """
        registry, deadline = self.place.registry, self._deadline()
        while await self._is_busy(thread_id):
            await _look_again(deadline, f"thread {thread_id!r}")
        await self._forget_state(thread_id)
        while not await registry.delete_thread(thread_id):
            if await registry.get_thread_head(thread_id) is None:
                return False
            await self._is_busy(thread_id)
            await _look_again(deadline, f"thread {thread_id!r}")
        await self._forget_state(thread_id)  # that of a run which was admitted meanwhile
        return True

    async def delete_expired(self) -> None:
        for thread_id in await self.place.registry.expired_threads():
            try:
                await self.delete_thread(thread_id)
            except ReplicaError as error:
                _LOG.warning("thread %s has expired, and is not deleted yet: %s", thread_id, error)
            except Exception:  # a saver that is not ours may raise anything, and others expire, too
                _LOG.exception("thread %s has expired, and cannot be deleted", thread_id)

    def _deadline(self) -> float:
        """A replica that is gone is noticed within its lease and a sweep."""
        return time.monotonic() + 1 + 2 * self.place.lease_seconds

    async def _is_busy(self, thread_id: str) -> bool:
        """Whether runs of the thread are not over; they are stopped."""
        found = [run for status in UNFINISHED for run in await self._runs(thread_id, status)]
        for run in found:
            await self.place.registry.cancel(run.run_id)
        return bool(found)

    async def _runs(self, thread_id: str, status: RunStatus) -> tuple[RunRecord, ...]:
        return await self.place.registry.list(thread_id, limit=1000, status=status)

    async def _delete_over(self, run: RunRecord) -> bool:
        saver, registry = self.place.checkpointer, self.place.registry
        was_last = [other.run_id for other in await registry.list(run.thread_id, limit=1)] == [run.run_id]
        if saver is not None:
            await delete_run_checkpoints(saver, run.thread_id, run.run_id, before=None)
        if not await registry.delete(run.run_id):
            return False
        if was_last:
            await self._settle(run.thread_id)
        return True

    async def _settle(self, thread_id: str) -> None:
        """The thread's row shows the state that is the last one now."""
        row = await self.place.registry.get_thread(thread_id)
        if row is None or self.place.checkpointer is None:
            return
        state = await self._state(thread_id)
        shown = row.values if isinstance(row.values, Mapping) else {}
        values = {key: state[key] for key in shown if key in state}
        await self.place.registry.settle_thread(thread_id, RunOutcome("success", "idle", values=values))
        await self.place.moved(thread_id, None)

    async def _state(self, thread_id: str) -> dict[str, Any]:
        saver = self.place.checkpointer
        if saver is None:
            return {}
        with saver_errors(saver):
            saved = await saver.aget_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
        return dict(saved.checkpoint["channel_values"]) if saved else {}

    async def _forget_state(self, thread_id: str) -> None:
        saver = self.place.checkpointer
        if saver is not None:
            with saver_errors(saver):
                await saver.adelete_thread(thread_id)


async def _look_again(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise StoreUnavailableError(f"{what} does not end: its replica does not answer")
    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
