"""The threads of a registry in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ...errors import StoreUnavailableError
from . import rules
from .base import RunRegistry
from .documents import detached
from .records import NewRun, RunOutcome, ThreadHead, ThreadRow, ThreadStatus


@dataclass
class _Terms:
    """What nobody sees of a thread: its status but for its unfinished runs, and until when it is kept."""

    resting: ThreadStatus = "idle"
    keep_seconds: float = math.inf
    expires_at: float = math.inf  # by the monotonic clock


class InMemoryThreads(RunRegistry):
    """The half of the registry that keeps threads."""

    def __init__(self) -> None:
        super().__init__()
        self._threads: dict[str, ThreadRow] = {}
        self._terms: dict[str, _Terms] = {}
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailableError("the run registry is closed")

    async def _create_thread(
        self, thread_id: str, user_id: str | None, metadata: Mapping[str, Any], config: Mapping[str, Any], hidden: bool
    ) -> ThreadRow | None:
        self._check_open()
        if thread_id in self._threads:
            return None
        return self._insert_thread(thread_id, user_id, metadata, config, hidden=hidden)

    async def get_thread(self, thread_id: str) -> ThreadRow | None:
        self._check_open()
        return self._threads.get(thread_id)

    async def get_threads(self, thread_ids: Sequence[str]) -> tuple[ThreadRow, ...]:
        self._check_open()
        found = (self._threads.get(thread_id) for thread_id in dict.fromkeys(thread_ids))
        return tuple(row for row in found if row is not None and not row.hidden)

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

    async def expired_threads(self, *, limit: int = 100) -> Sequence[str]:
        self._check_open()
        now = time.monotonic()
        return [key for key, term in self._terms.items() if term.expires_at <= now][:limit]

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

    # What runs do to their thread; each is told how many others of it are not over

    def _insert_thread(
        self,
        thread_id: str,
        user_id: str | None,
        metadata: Mapping[str, Any],
        config: Mapping[str, Any],
        *,
        hidden: bool,
    ) -> ThreadRow:
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
        self._threads[thread_id], self._terms[thread_id] = row, _Terms()
        return row

    def _make_busy(self, run: NewRun) -> dict[str, list[Any]]:
        if run.thread_id not in self._threads:
            self._insert_thread(run.thread_id, run.user_id, {}, {}, hidden=run.hidden)
        row, terms = self._threads[run.thread_id], self._terms[run.thread_id]
        if row.status != "busy":
            terms.resting = row.status
        if run.keep_seconds is not None:
            terms.keep_seconds = run.keep_seconds
        terms.expires_at = math.inf
        given = detached(run.thread_metadata)
        self._change_thread(run.thread_id, status="busy", metadata=rules.merged(row.metadata, given))
        return rules.replaced(row.metadata, given)

    def _leave(self, thread_id: str, outcome: RunOutcome, unfinished: int) -> None:
        row = self._threads[thread_id]
        self._terms[thread_id].resting = outcome.thread_status
        self._change_thread(
            thread_id,
            status=rules.thread_status(unfinished, outcome.thread_status),
            error=detached(outcome.error),
            values=row.values if outcome.values is None else detached(outcome.values),
            interrupts=detached(outcome.interrupts),
            state_updated_at=datetime.now(UTC),
        )
        self._expire(thread_id, unfinished)

    def _leave_unbegun(self, thread_id: str, outcome: RunOutcome, unfinished: int) -> None:
        if not unfinished:
            self._terms[thread_id].resting = outcome.thread_status
            self._change_thread(thread_id, status=outcome.thread_status, error=detached(outcome.error))
            self._expire(thread_id, 0)

    def _rest(self, thread_id: str, replaced: Mapping[str, list[Any]], unfinished: int) -> None:
        if replaced:
            row = self._threads[thread_id]
            self._threads[thread_id] = replace(row, metadata=rules.taken_back(row.metadata, replaced))
        if not unfinished:
            self._change_thread(thread_id, status=self._terms[thread_id].resting)
            self._expire(thread_id, 0)

    def _expire(self, thread_id: str, unfinished: int) -> None:
        terms = self._terms[thread_id]
        terms.expires_at = math.inf if unfinished else time.monotonic() + terms.keep_seconds

    def _change_thread(self, thread_id: str, **changes: Any) -> ThreadRow:
        row = replace(self._threads[thread_id], updated_at=datetime.now(UTC), **changes)
        self._threads[thread_id] = row
        return row
