"""The end of a run, once its graph has stopped."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ReplicaError, StreamEndedError, StreamError
from .checkpoints import delete_run_checkpoints, take_back_refused
from .fencing import no_more_writes
from .leases import HeldLease, LeaseLostError
from .registry import rules
from .registry.records import Ended, RunOutcome
from .request import Run
from .stream_run import error_data
from .workplace import Workplace

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

_LOG = logging.getLogger(__name__)


@dataclass
class Ending:
    """Ends a run as long as its lease holds.

    The order: the last events, the status, an `error` event, END, closed. Whoever sees the stream's end finds a
    terminal status on every replica, or no run at all if it was rolled back. `saver` is what the run wrote through,
    `values_left` reads the values that its thread has now; both None for a run whose graph was not entered.
    """

    run: Run
    held: HeldLease
    place: Workplace
    saver: BaseCheckpointSaver[Any] | None = None
    values_left: Callable[[], Awaitable[Any]] | None = None

    async def end(self, outcome: RunOutcome) -> None:
        """With this outcome, unless the run is to be rolled back."""
        await no_more_writes(self.saver)
        if outcome.status == "error" and outcome.error != rules.SHUTDOWN:
            await self._change_checkpoints(take_back_refused)
        if outcome.status != "success":
            outcome = replace(outcome, values=await self._values_left())
        outcome = await self._events_stored(outcome)
        ended = await self.held.insist(lambda: self.place.registry.finish(self.held.lease, outcome))
        if ended is None and await self._is_to_be_rolled_back():
            return await self._undo()
        if ended is None and not await self._has_ended_so(outcome):
            raise LeaseLostError(f"run {self.run.run_id!r} was ended by somebody else")
        await self._publish_end(outcome, ended)
        return None

    async def roll_back(self) -> None:
        """As if the run had never been."""
        await no_more_writes(self.saver)
        await self._events_stored(rules.cancelled())
        await self._undo()

    async def _undo(self) -> None:
        registry = self.place.registry
        await self._change_checkpoints(partial(delete_run_checkpoints, run_id=self.run.run_id, before=None))
        ended = await self.held.insist(lambda: registry.roll_back(self.held.lease))
        if ended is None and await self.held.insist(lambda: registry.get(self.run.run_id)) is not None:
            raise LeaseLostError(f"run {self.run.run_id!r} was ended by somebody else")
        await self._publish_end(rules.cancelled(), ended)

    async def _values_left(self) -> Any:
        """Of a run that did not reach its end: what it had stored until then. None: whatever the thread had before."""
        if self.values_left is None:
            return None
        try:
            return await self.values_left()
        except Exception:  # a graph may raise anything of its state; the run must end all the same
            _LOG.exception("run %s: the values that it left could not be read", self.run.run_id)
            return None

    async def _change_checkpoints(self, change: Callable[[BaseCheckpointSaver[Any], str], Awaitable[None]]) -> None:
        saver, run = self.saver, self.run
        if saver is None:
            return
        try:
            await self.held.insist(lambda: change(saver, run.thread_id))
        except ReplicaError:
            raise
        except Exception:  # a saver that is not ours may raise anything; the run must end all the same
            _LOG.exception("run %s: its checkpoints could not be taken back", run.run_id)

    async def _publish_end(self, outcome: RunOutcome, ended: Ended | None) -> None:
        bridge, run_id, insist = self.place.bridge, self.run.run_id, self.held.insist
        await self.place.moved(self.run.thread_id, ended.next if ended else None)
        self.run.became(outcome.status)
        with contextlib.suppress(StreamEndedError):  # somebody took this process for dead and ended the stream
            if outcome.error is not None:
                await insist(lambda: bridge.publish(run_id, "error", outcome.error))
            await insist(lambda: bridge.publish_end(run_id, reason=rules.end_reason(outcome.status)))
        await insist(lambda: self.place.registry.close_run(run_id))
        await insist(lambda: bridge.cleanup(run_id, delay=self.place.retention_seconds))

    async def _events_stored(self, outcome: RunOutcome) -> RunOutcome:
        """Flush; a run whose events were refused did not succeed."""
        try:
            await self.held.insist(lambda: self.place.bridge.flush(self.run.run_id))
        except StreamError as error:
            _LOG.warning("run %s: its last events were not stored: %s", self.run.run_id, error)
            if outcome.error is None and not isinstance(error, StreamEndedError):
                return rules.failed(error_data(error))
        return outcome

    async def _is_to_be_rolled_back(self) -> bool:
        registry, lease = self.place.registry, self.held.lease
        wishes = await self.held.insist(lambda: registry.renew([lease], lease_seconds=self.place.lease_seconds))
        return wishes.get(lease.run_id) == "rollback"

    async def _has_ended_so(self, outcome: RunOutcome) -> bool:
        """Whether the answer of an attempt was lost, which had been successful."""
        record = await self.held.insist(lambda: self.place.registry.get(self.run.run_id))
        return record is not None and (record.status, record.error) == (outcome.status, outcome.error)
