"""The runs of one replica: it starts and ends them, keeps their leases, and ends those of replicas that are gone."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from langchain_core.utils.uuid import uuid7

from ..errors import ReplicaError
from .control import Control
from .counts import RunCounts
from .events import requested_modes
from .execution import Execution, Workplace, end_stream
from .leases import LeaseKeeper
from .registry import rules
from .registry.base import RunRegistry
from .registry.records import Admission, Cancelled, NewRun, Unclosed
from .request import Run, RunRequest

if TYPE_CHECKING:
    from ..stream.base import StreamBridge

_LOG = logging.getLogger(__name__)
_END_SECONDS = 5.0  # after the grace, for the last events and statuses


class RunManager:
    """Executes runs as tasks of this process and publishes them to the bridge.

    Bridge and registry are borrowed. Everything happens on the loop that opened it.
    """

    def __init__(
        self,
        bridge: StreamBridge,
        registry: RunRegistry,
        *,
        replica_id: str,
        lease_seconds: float = 10.0,
        retention_seconds: float = 600.0,
        max_concurrent_runs: int = 0,
    ) -> None:
        self.replica_id = replica_id
        self.counts = RunCounts()
        self._place = Workplace(bridge, registry, lease_seconds, retention_seconds)
        self._keeper = LeaseKeeper(registry, lease_seconds=lease_seconds)
        self._control = Control(bridge, replica_id, self._stop_here)
        self._slots = asyncio.Semaphore(max_concurrent_runs) if max_concurrent_runs else None
        self._executions: dict[str, Execution] = {}
        self._starting: set[asyncio.Task[Run]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sweeping = asyncio.Lock()
        self._swept = 0.0  # when the last sweep that succeeded began
        self._background: list[asyncio.Task[None]] = []
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True
        self._place.registry.on_cancel(self._on_cancel)
        loops: list[Callable[[], Awaitable[None]]] = [self._keeper.keep, self._sweep_for_ever, self._control.listen]
        self._background = [asyncio.create_task(_logged(loop), name=loop.__qualname__) for loop in loops]

    async def close(self, *, grace_seconds: float = 0.0) -> None:
        """Start nothing more, give the runs their grace, then end them as `ReplicaShutdown`. No task is left."""
        self._is_open = False
        await asyncio.gather(*self._starting, return_exceptions=True)
        if not await self._over_within(grace_seconds):
            await self.end_runs()
        self._place.registry.on_cancel(None)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def start(self, request: RunRequest) -> Run:
        """Admit a run and execute it as its turn comes.

        Raises `ValueError` (mode, strategy), `RunConflictError`, `LookupError` (no such thread, and not
        `create_thread`), `StoreUnavailableError`, `ReplicaError` once closed: nothing is left of such a run. A caller
        that is cancelled meanwhile does not stop the run.
        """
        self.check_open()
        requested_modes(request.stream_mode)
        task = asyncio.create_task(self._admitted(request))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return await asyncio.shield(task)

    def check_open(self) -> None:
        """Raises `ReplicaError` once no run is started here any more."""
        if not self._is_open:
            raise ReplicaError("closed: this replica starts no runs any more")

    @property
    def active_runs(self) -> int:
        """How many runs execute in this process now."""
        return sum(execution.run.status == "running" for execution in self._executions.values())

    async def idle(self) -> None:
        """Wait until no run is left in this process."""
        await self._idle.wait()

    async def end_runs(self) -> None:
        """End what runs here as `ReplicaShutdown`; what cannot even be ended in time is left to a sweep."""
        for execution in self._executions.values():
            execution.stop("shutdown")
        if not await self._over_within(_END_SECONDS):
            await asyncio.gather(*(execution.abandon() for execution in list(self._executions.values())))

    async def sweep_now(self) -> None:
        """End what replicas that are gone left behind. Any number of callers at once share one or two sweeps."""
        asked = time.monotonic()
        async with self._sweeping:
            began = time.monotonic()
            if self._swept > asked:
                return
            for unclosed in await self._place.registry.sweep():
                await self._close_swept(unclosed)
            self._swept = began

    # Starting and ending

    async def _admitted(self, request: RunRequest) -> Run:
        sent = time.monotonic()
        run = _new_run(request, self.replica_id, start=self._slots is None or not self._slots.locked())
        admission = await self._place.registry.admit(run, lease_seconds=self._place.lease_seconds)
        return self._begin(request, admission, sent)

    def _begin(self, request: RunRequest, admission: Admission, sent: float) -> Run:
        record, registry = admission.record, self._place.registry
        run = Run(record.run_id, record.thread_id, request.user_id, lambda: registry.cancel(record.run_id))
        run.became(record.status)
        execution = Execution(request, run, admission, sent, self._place)
        self._executions[record.run_id] = execution
        self._idle.clear()
        self._keeper.hold(execution.held)
        execution.begin(self._slots or nullcontext(), self._over)
        return run

    def _over(self, execution: Execution) -> None:
        self._keeper.release(execution.held)
        del self._executions[execution.run.run_id]
        if not execution.held.is_lost:
            self.counts.over(execution.request, execution.run)
        for other in self._executions.values():
            if other.run.thread_id == execution.run.thread_id:
                other.wake()
        if not self._executions:
            self._idle.set()

    async def _over_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return not self._executions
        return True

    # Cancel

    async def _on_cancel(self, cancelled: Cancelled) -> None:
        """A cancellation is stored: shorten the wait for it. What fails here comes true at a renewal or a sweep."""
        run_id = cancelled.run_id
        try:
            if cancelled.ended:
                await self._close_stream(run_id, None, rules.end_reason("interrupted"))
                self._wake(run_id)
            elif not self._stop_here(run_id):
                await self._control.send(cancelled.owner, run_id)
        except ReplicaError as error:
            _LOG.warning("run %s: its cancellation takes its time: %s", run_id, error)

    def _stop_here(self, run_id: str) -> bool:
        execution = self._executions.get(run_id)
        if execution is not None:
            execution.stop("cancelled")
        return execution is not None

    def _wake(self, run_id: str) -> None:
        if execution := self._executions.get(run_id):
            execution.wake()

    # Sweep

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._place.lease_seconds / 5 * random.uniform(0.8, 1.2))  # noqa: S311  # jitter
            try:
                await self.sweep_now()
            except ReplicaError as error:
                _LOG.warning("the runs of lost replicas could not be swept: %s", error)

    async def _close_swept(self, unclosed: Unclosed) -> None:
        _LOG.warning("run %s ended here for its replica (%s)", unclosed.run_id, unclosed.status)
        self.counts.orphans += unclosed.orphaned
        reason = rules.end_reason(unclosed.status, orphaned=unclosed.orphaned)
        await self._close_stream(unclosed.run_id, unclosed.error, reason)

    async def _close_stream(self, run_id: str, error: Any, reason: str) -> None:
        await end_stream(self._place.bridge, run_id, error, reason)
        await self._place.registry.close_run(run_id)
        await self._place.bridge.cleanup(run_id, delay=self._place.retention_seconds)


def _new_run(request: RunRequest, replica_id: str, *, start: bool) -> NewRun:
    return NewRun(
        run_id=request.run_id or str(uuid7()),
        thread_id=request.thread_id,
        owner=replica_id,
        user_id=request.user_id,
        assistant_id=request.assistant_id,
        metadata=request.metadata,
        kwargs=request.kwargs,
        multitask_strategy=request.multitask_strategy,
        thread_metadata=request.thread_metadata,
        create_thread=request.create_thread,
        hidden=request.hidden,
        start=start,
    )


async def _logged(loop: Callable[[], Awaitable[None]]) -> None:
    """A background loop that breaks must not break unseen."""
    try:
        await loop()
    except Exception:
        _LOG.exception("%s stopped: this replica must be restarted", getattr(loop, "__qualname__", loop))
        raise
