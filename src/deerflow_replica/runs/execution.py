"""One run in this process, from its admission to the end of its stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import StoreUnavailableError, StreamEndedError, StreamError, StreamUnavailableError
from .events import shown
from .fencing import fenced_graph
from .leases import HeldLease, LeaseLostError
from .registry import rules
from .registry.base import RunRegistry
from .registry.documents import to_json
from .registry.records import Admission, Json, RunOutcome, RunStatus
from .request import Run, RunRequest
from .stream_run import GraphRun, RunResult, error_data, first_event, traceback_text
from .tail import ends_with_error

if TYPE_CHECKING:
    from ..stream.base import StreamBridge

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
_RETRY_SECONDS = 0.2

StopReason = Literal["cancelled", "shutdown", "lost"]
Slots = AbstractAsyncContextManager[Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workplace:
    """What every execution of a replica uses."""

    bridge: StreamBridge
    registry: RunRegistry
    lease_seconds: float
    retention_seconds: float


class Execution:
    """Waits for its turn, runs the graph and ends the run, as long as the lease holds.

    The order at the end: the last events, the status, an `error` event, END, closed. Whoever sees the stream's end
    finds a terminal status on every replica.
    """

    def __init__(self, request: RunRequest, run: Run, admission: Admission, sent: float, place: Workplace) -> None:
        self.request = request
        self.run = run
        self.held = HeldLease(
            admission.lease,
            sent + place.lease_seconds,
            on_lost=lambda: self.stop("lost"),
            on_cancel=lambda _: self.stop("cancelled"),
        )
        self._place = place
        self._status: RunStatus | None = admission.record.status
        self._reason: StopReason | None = None
        self._has_begun = False
        self._is_ending = False
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, slots: Slots, when_over: Callable[[Execution], None]) -> None:
        self._task = asyncio.create_task(self._execute(slots), name=f"run {self.run.run_id}")
        self._task.add_done_callback(lambda _: when_over(self))

    def wake(self) -> None:
        """A run of the thread ended: it may be this one's turn."""
        self._woken.set()

    def stop(self, reason: StopReason) -> None:
        """Stop the graph, now; later calls, and calls once the run is ending, change nothing."""
        if self._is_ending or self._reason is not None or self._task is None:
            return
        self._reason = reason
        if self._has_begun:  # a task that is cancelled before its first step never takes it
            self._task.cancel()

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
            if outcome is not None:
                await self._end(outcome)
            status = self.run.status
        except LeaseLostError as lost:
            _LOG.warning("%s; it stopped here", lost)
        finally:
            self.run.became(status, over=True)

    async def _outcome(self, slots: Slots) -> RunOutcome | None:
        """None: the run was ended by somebody else while it waited."""
        if self._reason is not None:
            return self._outcome_of(asyncio.CancelledError())
        try:
            return await self._result_in_turn(slots)
        except LeaseLostError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # whatever a graph raises is its run's outcome
            return self._outcome_of(error)

    def _outcome_of(self, error: BaseException) -> RunOutcome:
        if _is_cancelled():
            if self._reason is None:
                raise error  # not ours: this task is being torn down
            _uncancel()
        match self._reason:
            case "cancelled":
                return rules.cancelled()
            case "shutdown":
                return rules.failed(rules.SHUTDOWN)
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
        registry, lease = self._place.registry, self.held.lease
        if self._status == "pending":
            self._woken.clear()
            self._status = await self._while_held(
                lambda: registry.start(lease, lease_seconds=self._place.lease_seconds)
            )
        if self._status is None:
            raise LeaseLostError(f"run {lease.run_id!r} is not this process's any more")
        self.run.became(self._status)
        return self._status

    async def _wait_for_hint(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self._woken.wait()

    async def _result(self) -> RunOutcome:
        asked = self.request
        await self._publish("metadata", first_event(self.run.run_id))
        async with asked.open_graph() as opened:
            graph = fenced_graph(opened, self.held.check)
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
        await self._while_held(lambda: self._place.bridge.publish(self.run.run_id, event, data))

    # The end of a run

    async def _end(self, outcome: RunOutcome) -> None:
        self._is_ending = True
        bridge, registry, run_id = self._place.bridge, self._place.registry, self.run.run_id
        outcome = await self._events_stored(outcome)
        await self._finish(outcome)
        self.run.became(outcome.status)
        with contextlib.suppress(StreamEndedError):  # somebody took this process for dead and ended the stream
            if outcome.error is not None:
                await self._publish("error", outcome.error)
            await self._while_held(lambda: bridge.publish_end(run_id, reason=rules.end_reason(outcome.status)))
        await self._while_held(lambda: registry.close_run(run_id))
        await self._while_held(lambda: bridge.cleanup(run_id, delay=self._place.retention_seconds))

    async def _events_stored(self, outcome: RunOutcome) -> RunOutcome:
        """Flush; a run whose events were refused did not succeed."""
        try:
            await self._while_held(lambda: self._place.bridge.flush(self.run.run_id))
        except StreamError as error:
            _LOG.warning("run %s: its last events were not stored: %s", self.run.run_id, error)
            if outcome.error is None and not isinstance(error, StreamEndedError):
                return rules.failed(error_data(error))
        return outcome

    async def _finish(self, outcome: RunOutcome) -> None:
        if await self._while_held(lambda: self._place.registry.finish(self.held.lease, outcome)):
            return
        record = await self._while_held(lambda: self._place.registry.get(self.run.run_id))
        if record is None or record.status != outcome.status or record.error != outcome.error:
            raise LeaseLostError(f"run {self.run.run_id!r} was ended by somebody else")

    async def _while_held(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try until it works or the lease is gone: a server that is away must not fail a run."""
        while True:
            self.held.check()
            try:
                return await work()
            except (StreamUnavailableError, StoreUnavailableError) as error:
                _LOG.warning("run %s waits: %s", self.run.run_id, error)
            await asyncio.sleep(_RETRY_SECONDS)


async def end_stream(bridge: StreamBridge, run_id: str, error: Json | None, reason: str) -> None:
    """End a stream for an executor that cannot. That it has ended meanwhile is as good.

    The executor may have died between its `error` and END: there is one `error` at most.
    """
    try:
        if error is not None and not await ends_with_error(bridge, run_id):
            await bridge.publish(run_id, "error", error)
        await bridge.publish_end(run_id, reason=reason)
    except StreamEndedError:
        _LOG.debug("run %s: its stream had ended already", run_id)


async def _success(graph: Any, config: Mapping[str, Any], result: RunResult) -> RunOutcome:
    stopped = result.status == "interrupted"
    interrupts = await _interrupts_by_task(graph, config) if stopped else {}
    return rules.succeeded(_row_values(result), interrupts, stopped=stopped)


async def _interrupts_by_task(graph: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    if not getattr(graph, "checkpointer", None):
        return {}
    where = {key: value for key, value in config.get("configurable", {}).items() if key != "checkpoint_id"}
    state = await graph.aget_state({"configurable": where})
    return {task.id: shown(task.interrupts) for task in state.tasks if task.interrupts}


def _row_values(result: RunResult) -> Any:
    """What the thread's row keeps. State without a JSON form is not an error of the run: nobody asked to see it."""
    try:
        to_json(result.values)
    except TypeError as error:
        _LOG.warning("run %s: the thread's row keeps no values: %s", result.run_id, error)
        return None
    return result.values


def _is_cancelled() -> bool:
    """Whether somebody cancelled this task: a graph may also raise `CancelledError` by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
