"""One run in this process, from its admission to the end of its stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver

from .ending import Ending
from .events import shown
from .fencing import fenced_graph, fenced_saver
from .leases import HeldLease, LeaseLostError
from .registry import rules
from .registry.records import Admission, CancelAction, RunOutcome, RunStatus
from .request import Run, RunRequest
from .stream_run import GraphRun, RunResult, error_data, first_event, traceback_text
from .values_left import head_of, row_values, values_left
from .workplace import Workplace

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 1.0

StopReason = Literal["cancelled", "rolled back", "shutdown", "released", "lost"]
Slots = AbstractAsyncContextManager[Any]


class Execution:
    """Waits for its turn, runs the graph and ends the run, as long as the lease holds."""

    def __init__(self, request: RunRequest, run: Run, admission: Admission, sent: float, place: Workplace) -> None:
        self.request = request
        self.run = run
        self.held = HeldLease(
            admission.lease,
            sent + place.lease_seconds,
            on_lost=lambda: self.stop("lost"),
            on_cancel=self.cancel,
        )
        self._place = place
        self._ending = Ending(run, self.held, place)
        self._due = time.monotonic() + request.after_seconds
        self._status: RunStatus = admission.record.status
        self._reason: StopReason | None = None
        self._has_begun = False
        self._is_ending = False
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_pending(self) -> bool:
        return self._status == "pending"

    def begin(self, slots: Slots, when_over: Callable[[Execution], None]) -> None:
        self._task = asyncio.create_task(self._execute(slots), name=f"run {self.run.run_id}")
        self._task.add_done_callback(lambda _: when_over(self))

    def wake(self) -> None:
        """A run of the thread ended: it may be this one's turn."""
        self._woken.set()

    def cancel(self, action: CancelAction) -> None:
        """What was asked of the run. Of several wishes the strongest is in its row, which is asked at the end."""
        self.stop("rolled back" if action == "rollback" else "cancelled")

    def stop(self, reason: StopReason) -> None:
        """Stop the graph, now. Only a lost lease stops what is stopping or ending already: its end is another's."""
        is_stopping = self._is_ending or self._reason is not None
        if self._task is None or (is_stopping and reason != "lost"):
            return
        self._reason = reason
        if self._has_begun:  # a task that is cancelled before its first step never takes it
            self._task.cancel()

    def roll_back_only(self) -> None:
        """Before it begins: the graph ran in another replica, which is gone, and only its traces are to be removed."""
        self._reason = "rolled back"
        if self._place.checkpointer is not None:
            self._ending.saver = fenced_saver(self._place.checkpointer, self.held.check)

    async def abandon(self) -> None:
        """Cancel whatever it does, ending or not: the sweep of another replica ends the run."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # The life of a run

    async def _execute(self, slots: Slots) -> None:
        self._has_begun = True
        status: RunStatus = "error"
        try:
            outcome = await self._outcome(slots)
            self._is_ending = True
            if self._reason == "rolled back":
                await self._ending.roll_back()
            elif outcome is not None:
                await self._ending.end(outcome)
            status = self.run.status
        except LeaseLostError as lost:
            _LOG.warning("%s; it stopped here", lost)
        except asyncio.CancelledError:
            if self._reason != "lost":
                raise
            _LOG.warning("run %s is not this process's any more; its end was given up here", self.run.run_id)
        finally:
            self.run.became(status, over=True)

    async def _outcome(self, slots: Slots) -> RunOutcome | None:
        """None: the run was ended by somebody else while it waited, or released to somebody else."""
        if self._reason is not None:
            return self._outcome_of(asyncio.CancelledError())
        try:
            return await self._result_in_turn(slots)
        except LeaseLostError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # whatever a graph raises is its run's outcome
            return self._outcome_of(error)

    def _outcome_of(self, error: BaseException) -> RunOutcome | None:
        if _is_cancelled():
            if self._reason is None:
                raise error  # not ours: this task is being torn down
            _uncancel()
        match self._reason:
            case "cancelled" | "rolled back":
                return rules.cancelled()
            case "shutdown":
                return rules.failed(rules.SHUTDOWN)
            case "released":
                return None
            case "lost":
                raise LeaseLostError(f"run {self.run.run_id!r} is not this process's any more") from error
        _LOG.error("run %s failed\n%s", self.run.run_id, traceback_text(error))
        return rules.failed(error_data(error))

    async def _result_in_turn(self, slots: Slots) -> RunOutcome | None:
        """A run that waits for its thread keeps no slot from others."""
        while True:
            async with slots:
                status = await self._status_now()
                if status == "running":
                    return await self._result()
            if status != "pending":
                return None
            await self._wait_for_hint()

    async def _status_now(self) -> RunStatus:
        """Begins a pending run whose turn has come."""
        if self.is_pending:
            self._woken.clear()
            lease, seconds = self.held.lease, self._place.lease_seconds
            status = await self.held.insist(lambda: self._place.registry.start(lease, lease_seconds=seconds))
            self._status = status or await self._status_without_lease()
        self.run.became(self._status)
        return self._status

    async def _status_without_lease(self) -> RunStatus:
        """A run that is gone was rolled back, or deleted, while it waited; one that is there is somebody else's."""
        if await self.held.insist(lambda: self._place.registry.get(self.run.run_id)) is None:
            return "interrupted"
        raise LeaseLostError(f"run {self.run.run_id!r} is not this process's any more")

    async def _wait_for_hint(self) -> None:
        left = self._due - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left, _POLL_SECONDS) if left > 0 else _POLL_SECONDS):
                await self._woken.wait()

    async def _result(self) -> RunOutcome:
        asked = self.request
        await self._publish("metadata", first_event(self.run.run_id))
        async with asked.open_graph() as opened:
            graph = fenced_graph(opened, self.held.check)
            self._ending.saver = _saver_of(graph)
            self._ending.values_left = partial(values_left, graph, asked.config, self.run.run_id)
            graph_run = GraphRun(
                graph,
                asked.input,
                self.run.run_id,
                asked.context_for(graph),
                asked.config,
                asked.stream_mode,
                asked.subgraphs,
                asked.interrupt_before,
                asked.interrupt_after,
                asked.durability,
            )
            result = await graph_run.publish_to(self._publish)
            return await _success(graph, asked.config, result)

    async def _publish(self, event: str, data: Any) -> None:
        await self.held.insist(lambda: self._place.bridge.publish(self.run.run_id, event, data))


def _saver_of(graph: Any) -> BaseCheckpointSaver[Any] | None:
    saver = getattr(graph, "checkpointer", None)
    return saver if isinstance(saver, BaseCheckpointSaver) else None


async def _success(graph: Any, config: Mapping[str, Any], result: RunResult) -> RunOutcome:
    stopped = result.status == "interrupted"
    interrupts = await _interrupts_by_task(graph, config) if stopped else {}
    return rules.succeeded(row_values(result.values, result.run_id), interrupts, stopped=stopped)


async def _interrupts_by_task(graph: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    state = await head_of(graph, config)
    return {task.id: shown(task.interrupts) for task in state.tasks if task.interrupts} if state is not None else {}


def _is_cancelled() -> bool:
    """Whether somebody cancelled this task: a graph may also raise `CancelledError` by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
