"""The registry of a single process: dictionaries, and the same rules as the databases."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ...errors import RunConflictError, StoreUnavailableError
from . import rules
from .assistants_inmemory import InMemoryAssistants
from .base import RunRegistry
from .documents import detached
from .records import (
    Admission,
    CancelAction,
    Cancelled,
    Lease,
    NewRun,
    RunOutcome,
    RunRecord,
    RunStatus,
    ThreadHead,
    ThreadRow,
    ThreadStatus,
    Unclosed,
    Unfinished,
)


@dataclass
class _Run:
    """A row: what everybody sees, and what only executors do. `lapses_at` is by the monotonic clock."""

    record: RunRecord
    lapses_at: float
    fence: int = 1
    cancel_action: CancelAction | None = None
    closed: bool = False

    @property
    def lease(self) -> Lease:
        return Lease(self.record.run_id, self.record.owner, self.fence)

    @property
    def is_unfinished(self) -> bool:
        return not rules.is_terminal(self.record.status)


class InMemoryRunRegistry(RunRegistry):
    """Threads and runs of one process. Nothing waits, so every method is one transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._threads: dict[str, ThreadRow] = {}
        self._runs: dict[str, _Run] = {}  # in order of admission
        self._is_open = False
        self.assistants = InMemoryAssistants(self._check_open)

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    # Runs

    async def _get(self, run_id: str) -> RunRecord | None:
        self._check_open()
        run = self._runs.get(run_id)
        return run.record if run else None

    async def _list(self, thread_id: str, limit: int, offset: int, status: RunStatus | None) -> Sequence[RunRecord]:
        self._check_open()
        newest_first = [run.record for run in reversed(list(self._of_thread(thread_id)))]
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
        unfinished = self._unfinished(run.thread_id)
        rules.check_admission(run.multitask_strategy, run.thread_id, unfinished)
        row = self._insert_run(run, begins=run.start and rules.may_begin(unfinished), lease_seconds=lease_seconds)
        self._make_busy(run)
        return Admission(row.record, row.lease)

    async def start(self, lease: Lease, *, lease_seconds: float) -> RunStatus | None:
        self._check_open()
        run = self._leased(lease)
        if run is None:
            return None
        if run.record.status == "pending" and rules.may_begin(self._unfinished_before(run)):
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

    async def finish(self, lease: Lease, outcome: RunOutcome) -> bool:
        self._check_open()
        run = self._leased(lease)
        if run is None or not run.is_unfinished:
            return False
        self._end(run, outcome)
        return True

    async def _cancel(self, run_id: str, action: CancelAction) -> Cancelled | None:
        self._check_open()
        run = self._runs.get(run_id)
        if run is None or not run.is_unfinished:
            return None
        was_pending = run.record.status == "pending"
        if was_pending:
            self._end(run, rules.cancelled())
        else:
            run.cancel_action = action
        return Cancelled(run_id, run.record.owner, action, ended=was_pending)

    async def close_run(self, run_id: str) -> None:
        self._check_open()
        if (run := self._runs.get(run_id)) and not run.is_unfinished:
            run.closed = True

    async def sweep(self, *, limit: int = 100) -> Sequence[Unclosed]:
        self._check_open()
        now = time.monotonic()
        lapsed = [run for run in self._runs.values() if not run.closed and run.lapses_at <= now][:limit]
        return [self._take_over(run, now) for run in lapsed]

    async def delete(self, run_id: str) -> bool:
        self._check_open()
        run = self._runs.get(run_id)
        if run is None or run.is_unfinished:
            return False
        del self._runs[run_id]
        return True

    # Threads

    async def _create_thread(
        self, thread_id: str, user_id: str | None, metadata: Mapping[str, Any], config: Mapping[str, Any], hidden: bool
    ) -> ThreadRow | None:
        self._check_open()
        if thread_id in self._threads:
            return None
        now = datetime.now(UTC)
        row = ThreadRow(
            thread_id=thread_id,
            user_id=user_id,
            hidden=hidden,
            metadata=detached(metadata),
            config=detached(config),
            created_at=now,
            updated_at=now,
            state_updated_at=now,
        )
        self._threads[thread_id] = row
        return row

    async def get_thread(self, thread_id: str) -> ThreadRow | None:
        self._check_open()
        return self._threads.get(thread_id)

    async def get_thread_head(self, thread_id: str) -> ThreadHead | None:
        row = await self.get_thread(thread_id)
        if row is None:
            return None
        return ThreadHead(
            thread_id=thread_id, user_id=row.user_id, status=row.status, hidden=row.hidden, metadata=row.metadata
        )

    async def _update_thread(
        self, thread_id: str, metadata: Mapping[str, Any], config: Mapping[str, Any]
    ) -> ThreadRow | None:
        self._check_open()
        if thread_id not in self._threads:
            return None
        row = self._threads[thread_id]
        return self._change_thread(
            thread_id,
            metadata=rules.merged(row.metadata, detached(metadata)),
            config=rules.merged(row.config, detached(config)),
        )

    async def delete_thread(self, thread_id: str) -> bool:
        self._check_open()
        for run in list(self._of_thread(thread_id)):
            del self._runs[run.record.run_id]
        return self._threads.pop(thread_id, None) is not None

    async def _search_threads(
        self,
        ids: Sequence[str] | None,
        unowned: bool,
        status: ThreadStatus | None,
        metadata: Mapping[str, Any],
        order: str,
        limit: int,
        offset: int,
    ) -> Sequence[ThreadRow]:
        self._check_open()
        field, _, direction = order.rpartition("_")
        found = sorted(
            self._matching(ids, unowned, status, metadata),
            key=lambda row: (getattr(row, field), row.thread_id),
            reverse=direction == "desc",
        )
        return found[offset : offset + limit]

    async def _count_threads(
        self, ids: Sequence[str] | None, unowned: bool, status: ThreadStatus | None, metadata: Mapping[str, Any]
    ) -> int:
        self._check_open()
        return sum(1 for _ in self._matching(ids, unowned, status, metadata))

    def _matching(
        self, ids: Sequence[str] | None, unowned: bool, status: ThreadStatus | None, metadata: Mapping[str, Any]
    ) -> Iterator[ThreadRow]:
        for row in self._threads.values():
            if row.hidden or (unowned and row.user_id is not None):
                continue
            if (ids is None or row.thread_id in ids) and status in (None, row.status):
                yield from [row] if rules.contains(row.metadata, metadata) else []

    # Steps of the above

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError("the run registry is closed")

    def _of_thread(self, thread_id: str) -> Iterator[_Run]:
        return (run for run in self._runs.values() if run.record.thread_id == thread_id)

    def _unfinished(self, thread_id: str) -> int:
        return sum(run.is_unfinished for run in self._of_thread(thread_id))

    def _unfinished_before(self, run: _Run) -> int:
        earlier = 0
        for other in self._of_thread(run.record.thread_id):
            if other is run:
                break
            earlier += other.is_unfinished
        return earlier

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
        row = self._runs[run.run_id] = _Run(record, time.monotonic() + lease_seconds)
        return row

    def _make_busy(self, run: NewRun) -> None:
        now = datetime.now(UTC)
        new = ThreadRow(
            thread_id=run.thread_id,
            user_id=run.user_id,
            hidden=run.hidden,
            created_at=now,
            updated_at=now,
            state_updated_at=now,
        )
        row = self._threads.setdefault(run.thread_id, new)
        metadata = rules.merged(row.metadata, detached(run.thread_metadata))
        self._change_thread(run.thread_id, status="busy", metadata=metadata)

    def _set_status(self, run: _Run, status: RunStatus) -> None:
        run.record = replace(run.record, status=status, updated_at=datetime.now(UTC))

    def _end(self, run: _Run, outcome: RunOutcome) -> None:
        self._set_status(run, outcome.status)
        error = detached(outcome.error)
        run.record = replace(run.record, error=error)
        thread_id = run.record.thread_id
        row = self._threads[thread_id]
        self._change_thread(
            thread_id,
            status=rules.thread_status(self._unfinished(thread_id), outcome.thread_status),
            error=error,
            values=row.values if outcome.values is None else detached(outcome.values),
            interrupts=detached(outcome.interrupts),
            state_updated_at=datetime.now(UTC),
        )

    def _change_thread(self, thread_id: str, **changes: Any) -> ThreadRow:
        row = replace(self._threads[thread_id], updated_at=datetime.now(UTC), **changes)
        self._threads[thread_id] = row
        return row

    def _take_over(self, run: _Run, now: float) -> Unclosed:
        orphaned = run.is_unfinished
        if orphaned:
            run.fence += 1
            self._end(run, rules.failed(rules.ORPHANED))
        run.lapses_at = now + rules.CLOSE_WITHIN_SECONDS
        record = run.record
        return Unclosed(record.run_id, record.thread_id, record.status, record.error, orphaned)
