"""What a replica does for others that are gone: their runs are ended, closed, or taken over."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ReplicaError
from .counts import RunCounts
from .registry import rules
from .registry.records import Admission, RunRecord, ThreadHead, Unclosed
from .request import RunRequest, opened
from .values_left import values_left
from .workplace import Workplace

_LOG = logging.getLogger(__name__)
_STATE_SECONDS = 5.0  # other runs wait to be ended meanwhile
_AFTER_THIS_REPLICA = 1e9  # seconds: one that leaves does not judge whether others come in time

Adopt = Callable[[RunRecord, ThreadHead], Awaitable[RunRequest | None]]
"""The run of a row, as this process would execute it; None when it cannot."""

TakeUp = Callable[[RunRequest, Admission, float], object]
"""Executes a run whose lease was asked for at a time of the monotonic clock."""


@dataclass
class Sweeper:
    """One per replica. What any of them may do for a run is done by one."""

    place: Workplace
    replica_id: str
    counts: RunCounts
    take_up: TakeUp
    adopters: list[Adopt] = field(default_factory=list)
    adopts: bool = True

    def __post_init__(self) -> None:
        self._sweeping = asyncio.Lock()
        self._swept = 0.0  # when the last sweep that succeeded began

    async def sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.place.lease_seconds / 5 * random.uniform(0.8, 1.2))  # noqa: S311  # jitter
            try:
                await self.sweep_now()
            except ReplicaError as error:
                _LOG.warning("the runs of lost replicas could not be swept: %s", error)

    async def sweep_now(self) -> None:
        """Adopt and end what replicas that are gone left behind. Any number of callers at once share one or two sweeps.

        What nobody can adopt waits until all replicas have had their chance, and is ended then.
        """
        asked = time.monotonic()
        async with self._sweeping:
            began = time.monotonic()
            if self._swept > asked:
                return
            await self._adopt_all()
            chance = self.place.lease_seconds / 4 if self.adopts else _AFTER_THIS_REPLICA
            for unclosed in await self.place.registry.sweep(adoption_seconds=chance):
                await self._close(unclosed)
            self._swept = began

    async def _close(self, unclosed: Unclosed) -> None:
        _LOG.warning("run %s ended here for its replica (%s)", unclosed.run_id, unclosed.status)
        self.counts.orphans += unclosed.orphaned
        if unclosed.error == rules.ORPHANED:
            await self._settle(unclosed)
        await self.place.moved(unclosed.thread_id, unclosed.next)
        reason = rules.end_reason(unclosed.status, orphaned=unclosed.orphaned)
        await self.place.close_stream(unclosed.run_id, unclosed.error, reason)

    async def _settle(self, orphan: Unclosed) -> None:
        """Its thread's row shows the state that the lost replica left, unless somebody has changed the row since."""
        row = await self.place.registry.get_thread(orphan.thread_id)
        if row is None or row.status != "error" or row.error != rules.ORPHANED:
            return
        values = await self._values_left(orphan.run_id)
        if values is not None:
            outcome = replace(rules.failed(rules.ORPHANED), values=values)
            await self.place.registry.settle_thread(orphan.thread_id, outcome, if_state_of=row.state_updated_at)

    async def _values_left(self, run_id: str) -> Any:
        """None for a run whose graph is not known here."""
        record = await self.place.registry.get(run_id)
        request = None if record is None else await self._rebuilt(record)
        if request is None:
            return None
        try:
            async with asyncio.timeout(_STATE_SECONDS), request.open_graph() as graph:
                return await values_left(graph, request.config, run_id)
        except Exception:  # a graph may raise anything of its state; the run must end all the same
            _LOG.exception("run %s: the values that it left could not be read", run_id)
            return None

    async def _adopt_all(self) -> None:
        if self.adopts:
            for record in await self.place.registry.adoptable():
                await self._adopt(record)

    async def _adopt(self, record: RunRecord) -> None:
        request = self._undoing(record) if record.status == "running" else await self._rebuilt(record)
        if request is None:
            return
        sent, seconds = time.monotonic(), self.place.lease_seconds
        admission = await self.place.registry.adopt(record.run_id, self.replica_id, lease_seconds=seconds)
        if admission is not None:
            _LOG.warning("run %s is executed here instead of by %s", record.run_id, record.owner)
            self.take_up(request, admission, sent)

    def _undoing(self, record: RunRecord) -> RunRequest | None:
        """A running one is only rolled back, for which no graph is needed."""
        if self.place.checkpointer is None:
            return None
        return RunRequest(open_graph=opened(None), input=None, thread_id=record.thread_id, run_id=record.run_id)

    async def _rebuilt(self, record: RunRecord) -> RunRequest | None:
        head = await self.place.registry.get_thread_head(record.thread_id) if self.adopters else None
        if head is None:
            return None
        for adopt in self.adopters:
            try:
                request = await adopt(record, head)
            except ReplicaError:
                raise
            except Exception:  # the caller's code, or a row of another version: another replica may do better
                _LOG.exception("run %s of %s cannot be executed here", record.run_id, record.owner)
            else:
                if request is not None:
                    return request
        return None
