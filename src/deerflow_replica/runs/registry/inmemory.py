"""The registry of a single process: dictionaries, and the same rules as the databases."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ...errors import RunConflictError
from . import rules
from .assistants_inmemory import InMemoryAssistants
from .documents import detached
from .inmemory_threads import InMemoryThreads
from .records import (
    Admission,
    CancelAction,
    Cancelled,
    Ended,
    Lease,
    NewRun,
    OwnedRun,
    RunOutcome,
    RunRecord,
    RunStatus,
    Unclosed,
    Unfinished,
    Waiting,
)


@dataclass
class _Run:
    """A row: what everybody sees, and what only executors do. Times are by the monotonic clock."""

    record: RunRecord
    lapses_at: float
    due_at: float = 0.0
    fence: int = 1
    cancel_action: CancelAction | None = None
    replaced: dict[str, list[Any]] = field(default_factory=dict)
    closed: bool = False
    is_rolled_back: bool = False

    @property
    def lease(self) -> Lease:
        return Lease(self.record.run_id, self.record.owner, self.fence)

    @property
    def is_unfinished(self) -> bool:
        return not rules.is_terminal(self.record.status)

    @property
    def is_pending(self) -> bool:
        return self.record.status == "pending"

    @property
    def is_ahead(self) -> bool:
        """Whether later runs of its thread must wait for it."""
        return self.record.status == "running" or (self.is_pending and self.due_at <= time.monotonic())

    def is_adoptable(self, now: float) -> bool:
        waits = self.is_pending and self.record.assistant_id is not None
        rolls_back = self.record.status == "running" and self.cancel_action == "rollback"
        return not self.closed and self.lapses_at <= now and (waits or rolls_back)


class InMemoryRunRegistry(InMemoryThreads):
    """Threads and runs of one process. Nothing waits, so every method is one transaction."""

    is_shared = False

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[str, _Run] = {}  # in order of admission
        self.assistants = InMemoryAssistants(self._check_open)

    async def _get(self, run_id: str) -> RunRecord | None:
        self._check_open()
        run = self._runs.get(run_id)
        return None if run is None or run.is_rolled_back else run.record

    async def get_owned(self, run_ids: Sequence[str]) -> Mapping[str, OwnedRun]:
        records = [record for run_id in run_ids if (record := await self._get(run_id)) is not None]
        threads = [self._threads[record.thread_id] for record in records]
        found = zip(records, threads, strict=True)
        return {record.run_id: OwnedRun(record, thread.user_id, thread.hidden) for record, thread in found}

    async def _list(self, thread_id: str, limit: int, offset: int, status: RunStatus | None) -> Sequence[RunRecord]:
        self._check_open()
        newest_first = [run.record for run in reversed(list(self._of_thread(thread_id))) if not run.is_rolled_back]
        return [record for record in newest_first if status in (None, record.status)][offset : offset + limit]

    async def _unfinished_of(self, user_id: str | None, status: RunStatus | None) -> Sequence[Unfinished]:
        self._check_open()
        return [
            Unfinished(run.record.run_id, run.record.thread_id, thread.hidden)
            for run in reversed(self._runs.values())
            if run.is_unfinished and status in (None, run.record.status)
            if (thread := self._threads[run.record.thread_id]).user_id == user_id
        ]

    async def _admit(self, run: NewRun, lease_seconds: float) -> Admission:
        self._check_open()
        if run.run_id in self._runs:
            raise RunConflictError(f"run {run.run_id!r} exists already")
        if run.thread_id not in self._threads and not run.create_thread:
            raise LookupError(f"thread {run.thread_id!r} does not exist")
        rules.check_admission(run.multitask_strategy, run.thread_id, self._unfinished(run.thread_id))
        cancelled = self._cancel_earlier(run)
        ahead = sum(other.is_ahead for other in self._of_thread(run.thread_id))
        begins = run.start and not run.after_seconds and rules.may_begin(ahead)
        row = self._insert_run(run, begins=begins, lease_seconds=lease_seconds)
        row.replaced = self._make_busy(run)
        return Admission(row.record, row.lease, cancelled)

    async def start(self, lease: Lease, *, lease_seconds: float) -> RunStatus | None:
        self._check_open()
        run = self._leased(lease)
        if run is None:
            return None
        if run.is_pending and self._next(run.record.thread_id) == Waiting(run.record.run_id, run.record.owner):
            self._set_status(run, "running")
            run.lapses_at = time.monotonic() + lease_seconds
        return run.record.status

    async def renew(self, leases: Sequence[Lease], *, lease_seconds: float) -> Mapping[str, CancelAction | None]:
        self._check_open()
        now = time.monotonic()
        held = [run for lease in leases if (run := self._leased(lease)) and not run.closed and run.lapses_at > now]
        for run in held:
            run.lapses_at = now + lease_seconds
        return {run.record.run_id: run.cancel_action for run in held}

    async def finish(self, lease: Lease, outcome: RunOutcome) -> Ended | None:
        self._check_open()
        run = self._leased(lease)
        if run is None or not run.is_unfinished or run.cancel_action == "rollback":
            return None
        return Ended(run.record.thread_id, self._end(run, outcome))

    async def roll_back(self, lease: Lease) -> Ended | None:
        self._check_open()
        run = self._leased(lease)
        if run is None or run.record.status != "running":
            return None
        return Ended(run.record.thread_id, self._undo(run))

    async def _cancel(self, run_id: str, action: CancelAction) -> Cancelled | None:
        self._check_open()
        return self._cancel_now(run_id, action)

    async def close_run(self, run_id: str) -> None:
        self._check_open()
        if (run := self._runs.get(run_id)) and not run.is_unfinished:
            run.closed = True
            if run.is_rolled_back:
                del self._runs[run_id]

    async def sweep(self, *, limit: int = 100, adoption_seconds: float = 0.0) -> Sequence[Unclosed]:
        self._check_open()
        now = time.monotonic()
        lapsed = sorted(
            (run for run in self._runs.values() if not run.closed and run.lapses_at <= now),
            key=lambda run: run.lapses_at,
        )
        ripe = [run for run in lapsed if run.lapses_at <= now - adoption_seconds or not run.is_adoptable(now)]
        return [self._take_over(run, now) for run in ripe[:limit]]

    async def adoptable(self, *, limit: int = 100) -> Sequence[RunRecord]:
        self._check_open()
        now = time.monotonic()
        return [run.record for run in self._runs.values() if run.is_adoptable(now)][:limit]

    async def adopt(self, run_id: str, owner: str, *, lease_seconds: float) -> Admission | None:
        self._check_open()
        now, run = time.monotonic(), self._runs.get(run_id)
        if run is None or not run.is_adoptable(now):
            return None
        run.record, run.fence, run.lapses_at = replace(run.record, owner=owner), run.fence + 1, now + lease_seconds
        return Admission(run.record, run.lease)

    async def release(self, leases: Sequence[Lease]) -> Sequence[str]:
        self._check_open()
        held = [run for lease in leases if (run := self._leased(lease))]
        released = [run for run in held if run.is_pending and run.record.assistant_id is not None]
        for run in released:
            run.fence, run.lapses_at = run.fence + 1, time.monotonic()
        return [run.record.run_id for run in released]

    async def delete(self, run_id: str) -> bool:
        self._check_open()
        run = self._runs.get(run_id)
        if run is None or not run.closed:
            return False
        del self._runs[run_id]
        return True

    async def delete_thread(self, thread_id: str) -> bool:
        self._check_open()
        runs = list(self._of_thread(thread_id))
        if thread_id not in self._threads or not all(run.closed for run in runs):
            return False
        for run in runs:
            del self._runs[run.record.run_id]
        del self._threads[thread_id], self._terms[thread_id]
        return True

    async def settle_thread(self, thread_id: str, outcome: RunOutcome, *, if_state_of: datetime | None = None) -> bool:
        self._check_open()
        if thread_id not in self._threads or self._unfinished(thread_id):
            return False
        if if_state_of not in (None, self._threads[thread_id].state_updated_at):
            return False
        self._leave(thread_id, outcome, 0)
        return True

    # Steps of the above

    def _of_thread(self, thread_id: str) -> Iterator[_Run]:
        return (run for run in self._runs.values() if run.record.thread_id == thread_id)

    def _unfinished(self, thread_id: str) -> int:
        return sum(run.is_unfinished for run in self._of_thread(thread_id))

    def _cancel_earlier(self, run: NewRun) -> tuple[Cancelled, ...]:
        action = rules.action_on_others(run.multitask_strategy)
        if action is None:
            return ()
        earlier = [other.record.run_id for other in self._of_thread(run.thread_id) if other.is_unfinished]
        return tuple(one for run_id in earlier if (one := self._cancel_now(run_id, action)))

    def _cancel_now(self, run_id: str, action: CancelAction) -> Cancelled | None:
        run = self._runs.get(run_id)
        if run is None or not run.is_unfinished:
            return None
        thread_id, owner = run.record.thread_id, run.record.owner
        if run.is_pending:
            following = self._undo(run) if action == "rollback" else self._end(run, rules.cancelled())
            return Cancelled(run_id, thread_id, owner, action, ended=True, next=following)
        run.cancel_action = rules.stronger(run.cancel_action, action)
        return Cancelled(run_id, thread_id, owner, run.cancel_action, ended=False)

    def _next(self, thread_id: str) -> Waiting | None:
        ahead = [run for run in self._of_thread(thread_id) if run.is_ahead]
        if not ahead or any(run.record.status == "running" for run in ahead):
            return None
        return Waiting(ahead[0].record.run_id, ahead[0].record.owner)

    def _leased(self, lease: Lease) -> _Run | None:
        run = self._runs.get(lease.run_id)
        return run if run is not None and run.lease == lease else None

    def _insert_run(self, run: NewRun, *, begins: bool, lease_seconds: float) -> _Run:
        now = datetime.now(UTC)
        record = RunRecord(
            run_id=run.run_id,
            thread_id=run.thread_id,
            assistant_id=run.assistant_id,
            status="running" if begins else "pending",
            metadata=detached(run.metadata),
            kwargs=detached(run.kwargs),
            multitask_strategy=run.multitask_strategy,
            created_at=now,
            updated_at=now,
            owner=run.owner,
        )
        clock = time.monotonic()
        row = self._runs[run.run_id] = _Run(record, clock + lease_seconds, clock + run.after_seconds)
        return row

    def _set_status(self, run: _Run, status: RunStatus) -> None:
        run.record = replace(run.record, status=status, updated_at=datetime.now(UTC))

    def _end(self, run: _Run, outcome: RunOutcome) -> Waiting | None:
        leave = self._leave_unbegun if run.is_pending else self._leave
        self._set_status(run, outcome.status)
        run.record = replace(run.record, error=detached(outcome.error))
        leave(run.record.thread_id, outcome, self._unfinished(run.record.thread_id))
        return self._next(run.record.thread_id)

    def _undo(self, run: _Run) -> Waiting | None:
        self._set_status(run, "interrupted")
        run.is_rolled_back = True
        self._rest(run.record.thread_id, run.replaced, self._unfinished(run.record.thread_id))
        return self._next(run.record.thread_id)

    def _take_over(self, run: _Run, now: float) -> Unclosed:
        orphaned, following = run.is_unfinished, None
        if orphaned:
            run.fence += 1
            following = self._end(run, rules.failed(rules.ORPHANED))
        run.lapses_at = now + rules.CLOSE_WITHIN_SECONDS
        record = run.record
        return Unclosed(record.run_id, record.thread_id, record.status, record.error, orphaned, following)
