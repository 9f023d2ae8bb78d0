"""The runs of one replica: it starts and ends them, keeps their leases, and cares for those of lost replicas."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from langchain_core.utils.uuid import uuid7

from ..errors import ReplicaError
from .control import Control, Hint
from .counts import RunCounts
from .events import requested_modes
from .execution import Execution
from .leases import LeaseKeeper
from .registry import rules
from .registry.base import RunRegistry
from .registry.records import Admission, Cancelled, NewRun, Waiting
from .removing import Remover
from .request import Run, RunRequest
from .sweeping import Adopt, Sweeper
from .workplace import Workplace

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from ..stream.base import StreamBridge
    from .mirror import ThreadMirror

_LOG = logging.getLogger(__name__)
_END_SECONDS = 5.0  # after the grace, for the last events and statuses


class RunManager:
    """Executes runs as tasks of this process and publishes them to the bridge.

    What it is given is borrowed. Everything happens on the loop that opened it. `mirror` is told of every thread whose
    row changed, before anybody sees the change in a stream; `checkpointer` is where the threads' state is.
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
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        mirror: ThreadMirror | None = None,
    ) -> None:
        self.replica_id = replica_id
        self.counts = RunCounts()
        self.mirror = mirror
        self._place = Workplace(bridge, registry, lease_seconds, retention_seconds, checkpointer, self._moved)
        self._remover = Remover(self._place)
        self._sweeper = Sweeper(self._place, replica_id, self.counts, self._take_up)
        self._keeper = LeaseKeeper(registry, lease_seconds=lease_seconds)
        self._control = Control(bridge, replica_id, self._hear)
        self._slots = asyncio.Semaphore(max_concurrent_runs) if max_concurrent_runs else None
        self._executions: dict[str, Execution] = {}
        self._starting: set[asyncio.Task[Run]] = set()
        self._aside: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._background: list[asyncio.Task[None]] = []
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True
        self._place.registry.on_cancel(self._on_cancel)
        loops: list[Callable[[], Awaitable[None]]] = [
            self._keeper.keep,
            self._sweeper.sweep_for_ever,
            self._tidy_for_ever,
            self._control.listen,
        ]
        self._background = [asyncio.create_task(_logged(loop), name=loop.__qualname__) for loop in loops]

    async def close(self, *, grace_seconds: float = 0.0) -> None:
        """Start nothing more, give the runs their grace, then end them as `ReplicaShutdown`. No task is left."""
        self._is_open = False
        await asyncio.gather(*self._starting, return_exceptions=True)
        await self._released()
        if not await self._over_within(grace_seconds):
            await self.end_runs()
        self._place.registry.on_cancel(None)
        for task in (*self._background, *self._aside):
            task.cancel()
        await asyncio.gather(*self._background, *self._aside, return_exceptions=True)

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

    def executes(self, run_id: str) -> bool:
        """Whether this process has the run, waiting or running."""
        return run_id in self._executions

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

    def adopt_with(self, adopt: Adopt) -> None:
        """How runs of lost replicas that never began are executed here: `adopt` is asked for each."""
        self._sweeper.adopters.append(adopt)

    async def release_pending(self) -> frozenset[str]:
        """Leave to other replicas, at once, what waits here and can be executed there; adopt nothing any more.

        Returns the ids of these runs.
        """
        self._sweeper.adopts = False
        return await self._released()

    async def sweep_now(self) -> None:
        """Adopt and end what lost replicas left behind. Any number of callers at once share one or two sweeps."""
        await self._sweeper.sweep_now()

    async def delete_run(self, run_id: str) -> bool:
        """Delete a run with its checkpoints, wherever it executes; see `Remover`."""
        return await self._remover.delete_run(run_id)

    async def delete_thread(self, thread_id: str) -> bool:
        """Delete a thread with its runs and checkpoints, whatever runs in it; see `Remover`."""
        return await self._remover.delete_thread(thread_id)

    # Starting and ending

    async def _admitted(self, request: RunRequest) -> Run:
        sent = time.monotonic()
        new = self._new_run(request)
        admission = await self._place.registry.admit(new, lease_seconds=self._place.lease_seconds)
        run = self._begin(self._execution(request, admission, sent))
        for cancelled in admission.cancelled:
            await self._on_cancel(cancelled)
        await self._mirrored(run.thread_id)
        return run

    def _new_run(self, request: RunRequest) -> NewRun:
        return NewRun(
            run_id=request.run_id or str(uuid7()),
            thread_id=request.thread_id,
            owner=self.replica_id,
            user_id=request.user_id,
            assistant_id=request.assistant_id,
            metadata=request.metadata,
            kwargs=request.kwargs,
            multitask_strategy=request.multitask_strategy,
            thread_metadata=request.thread_metadata,
            create_thread=request.create_thread,
            hidden=request.hidden,
            start=self._slots is None or not self._slots.locked(),
            after_seconds=request.after_seconds,
            keep_seconds=self._place.retention_seconds if request.on_completion == "delete" else None,
        )

    def _take_up(self, request: RunRequest, admission: Admission, sent: float) -> None:
        """Execute, or only undo, what another replica had begun to care for."""
        execution = self._execution(request, admission, sent)
        if admission.record.status == "running":
            execution.roll_back_only()
        self._begin(execution)

    def _execution(self, request: RunRequest, admission: Admission, sent: float) -> Execution:
        record, registry = admission.record, self._place.registry
        run = Run(record, request.user_id, lambda: registry.cancel(record.run_id))
        return Execution(request, run, admission, sent, self._place)

    def _begin(self, execution: Execution) -> Run:
        self._executions[execution.run.run_id] = execution
        self._idle.clear()
        self._keeper.hold(execution.held)
        execution.begin(self._slots or nullcontext(), self._over)
        return execution.run

    def _over(self, execution: Execution) -> None:
        self._keeper.release(execution.held)
        del self._executions[execution.run.run_id]
        if not execution.held.is_lost:
            self.counts.over(execution.request, execution.run)
        if not self._executions:
            self._idle.set()

    async def _over_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return not self._executions
        return True

    async def _released(self) -> frozenset[str]:
        registry = self._place.registry
        pending = [execution for execution in self._executions.values() if execution.is_pending]
        if not pending or not registry.is_shared:
            return frozenset()
        try:
            released = frozenset(await registry.release([execution.held.lease for execution in pending]))
        except ReplicaError as error:
            _LOG.warning("waiting runs are left to a sweep: %s", error)
            return frozenset()
        for execution in pending:
            if execution.run.run_id in released:
                execution.stop("released")
        return released

    # What others are to know

    async def _moved(self, thread_id: str, following: Waiting | None) -> None:
        if following is not None:
            self._wake(following)
        await self._mirrored(thread_id)

    async def _mirrored(self, thread_id: str) -> None:
        if self.mirror is not None:
            await self.mirror.mirror(thread_id)

    def _wake(self, waiting: Waiting) -> None:
        if execution := self._executions.get(waiting.run_id):
            execution.wake()
        elif waiting.owner != self.replica_id:
            self._do_aside(self._control.send(waiting.owner, "wake", {"run_id": waiting.run_id}))

    async def _on_cancel(self, cancelled: Cancelled) -> None:
        """A cancellation is stored: shorten the wait for it. What fails here comes true at a renewal or a sweep."""
        run_id, execution = cancelled.run_id, self._executions.get(cancelled.run_id)
        if cancelled.ended:
            self._wake(Waiting(run_id, cancelled.owner))
            await self._moved(cancelled.thread_id, cancelled.next)
            self._do_aside(self._place.close_stream(run_id, None, rules.end_reason("interrupted")))
        elif execution is not None:
            execution.cancel(cancelled.action)
        else:
            hint = {"run_id": run_id, "action": cancelled.action}
            self._do_aside(self._control.send(cancelled.owner, "cancel", hint))

    def _hear(self, name: str, hint: Hint) -> None:
        execution = self._executions.get(hint["run_id"])
        if execution is None:
            return
        if name == "wake":
            execution.wake()
        else:
            execution.cancel(hint.get("action", "interrupt"))

    def _do_aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Without waiting for it, and not longer than this replica is open."""
        task = asyncio.create_task(_hinted(work))
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _tidy_for_ever(self) -> None:
        """What nobody waits for: threads that have expired, changes that the thread map has not got."""
        while True:
            await asyncio.sleep(self._place.lease_seconds / 5)
            try:
                await self._remover.delete_expired()
                if self.mirror is not None:
                    await self.mirror.retry()
            except ReplicaError as error:
                _LOG.warning("expired threads could not be deleted: %s", error)


async def _hinted(work: Awaitable[None]) -> None:
    try:
        await work
    except ReplicaError as error:
        _LOG.warning("it comes true a little later, at a renewal or a sweep: %s", error)


async def _logged(loop: Callable[[], Awaitable[None]]) -> None:
    """A background loop that breaks must not break unseen."""
    try:
        await loop()
    except Exception:
        _LOG.exception("%s stopped: this replica must be restarted", getattr(loop, "__qualname__", loop))
        raise
