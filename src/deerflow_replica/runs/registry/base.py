"""The run registry: threads and runs, who executes them, and until when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from . import rules
from .assistants import Assistants
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
    ThreadHead,
    ThreadRow,
    ThreadStatus,
    Unclosed,
    Unfinished,
)

ThreadOrder = Literal["created_at", "updated_at", "thread_id", "status"]
CancelListener = Callable[[Cancelled], Awaitable[None]]


class RunRegistry(ABC):
    """Rows for threads and runs, the same on every replica.

    One transaction per call; times and leases are by the server's clock. A lost server is `StoreUnavailableError`.
    An async context manager: entering sets the tables up.
    """

    assistants: Assistants
    is_shared = True
    """Whether other replicas see these rows, now or after a restart."""

    def __init__(self) -> None:
        self._on_cancel: CancelListener | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Runs, for everybody

    async def get(self, run_id: str) -> RunRecord | None:
        return await self._get(run_id)

    @abstractmethod
    async def get_owned(self, run_ids: Sequence[str]) -> Mapping[str, OwnedRun]:
        """Those of these runs that are there, with whose they are, in one statement."""

    async def list(
        self, thread_id: str, *, limit: int = 10, offset: int = 0, status: RunStatus | None = None
    ) -> tuple[RunRecord, ...]:
        """The thread's runs, newest first. `ValueError` unless 1 <= limit <= 1000 and offset >= 0."""
        rules.page(limit, offset)
        rules.known("status", status, (*rules.UNFINISHED, *rules.TERMINAL))
        return tuple(await self._list(thread_id, limit, offset, status))

    async def unfinished(self, *, user_id: str | None, status: RunStatus | None = None) -> tuple[Unfinished, ...]:
        """The runs that are not over, newest first, on threads that were made for this user (None: for nobody)."""
        rules.known("status", status, rules.UNFINISHED)
        return tuple(await self._unfinished_of(user_id, status))

    async def cancel(self, run_id: str, *, action: CancelAction = "interrupt") -> bool:
        """Ask for the end of a run, wherever it executes; a pending one is over at once. False: unknown, or over.

        Returns when the wish is stored, not when the run is over. `rollback` also deletes the run and what it left in
        its thread; it is stronger than `interrupt`, whichever is asked first.
        """
        rules.check_action(action)
        answer = await self._cancel(run_id, action)
        if answer is not None and self._on_cancel is not None:
            await self._on_cancel(answer)
        return answer is not None

    def on_cancel(self, listener: CancelListener | None) -> None:
        """Who is told of each cancellation that this object stored, to hint the run's owner."""
        self._on_cancel = listener

    # Runs, for their executor

    async def admit(self, run: NewRun, *, lease_seconds: float) -> Admission:
        """Add a run to its thread's line, and begin it if it is first.

        With the strategy `interrupt` or `rollback`, every earlier run of the thread that is not over is cancelled so.

        Raises `RunConflictError` (`reject` on a busy thread, or the run id is taken), `LookupError` (no such thread,
        and not `create_thread`) or `ValueError` (an id or metadata that cannot be stored); nothing is stored then.
        """
        rules.check_strategy(run.multitask_strategy)
        rules.check_text("run_id", run.run_id)
        rules.check_text("thread_id", run.thread_id)
        rules.check_metadata(run.thread_metadata)
        return await self._admit(run, lease_seconds)

    @abstractmethod
    async def start(self, lease: Lease, *, lease_seconds: float) -> RunStatus | None:
        """Begin a pending run if none of its thread is running, and none before it in line could begin.

        Its status afterwards: `running` when it began, `pending` when it must wait. None: the lease is not valid.
        """

    @abstractmethod
    async def renew(self, leases: Sequence[Lease], *, lease_seconds: float) -> Mapping[str, CancelAction | None]:
        """Prolong the leases of these runs, in one statement; for each prolonged one the wish to cancel it, if any.

        A run that is absent from the answer is another's now, or gone: its executor must stop and write nothing.
        A lease that has lapsed is never prolonged; one of a run that is over is, until the run is closed.
        """

    @abstractmethod
    async def finish(self, lease: Lease, outcome: RunOutcome) -> Ended | None:
        """Store how a run ended, with its thread, under its lease.

        None: the run is over, or the lease not valid, or the run is to be rolled back (a renewal says so).
        """

    @abstractmethod
    async def roll_back(self, lease: Lease) -> Ended | None:
        """End a running run as if it had never been, under its lease: nobody finds it any more, and its thread is what
        it was before. None: the run is over, or the lease not valid.

        The row itself goes with `close_run`; until then a sweep names it.
        """

    @abstractmethod
    async def close_run(self, run_id: str) -> None:
        """Remember that the END of a run that is over was published. Idempotent."""

    @abstractmethod
    async def sweep(self, *, limit: int = 100, adoption_seconds: float = 0.0) -> Sequence[Unclosed]:
        """End the runs whose lease has lapsed as orphans, and name those that are over but not closed.

        What may be `adopted` is left alone for `adoption_seconds`. Each run is named by one sweeper at a time: the
        caller publishes its end, then `close_run`s it. What is not closed within some seconds is named again.
        """

    @abstractmethod
    async def adoptable(self, *, limit: int = 100) -> Sequence[RunRecord]:
        """Runs of replicas that are gone and that another one may `adopt`: pending ones that name an assistant, and
        running ones that are to be rolled back.
        """

    @abstractmethod
    async def adopt(self, run_id: str, owner: str, *, lease_seconds: float) -> Admission | None:
        """Become the owner of a run that is adoptable; its former one is fenced. None: it is not adoptable any more."""

    @abstractmethod
    async def release(self, leases: Sequence[Lease]) -> Sequence[str]:
        """Give up those of these runs that are pending and name an assistant, for adoption at once; their ids."""

    @abstractmethod
    async def delete(self, run_id: str) -> bool:
        """Forget a run that is over and closed. False: unknown, or not so far."""

    # Threads

    async def create_thread(
        self,
        thread_id: str,
        *,
        user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        hidden: bool = False,
    ) -> ThreadRow | None:
        """A new idle thread, or None if there is one. `ValueError`: an id or metadata that cannot be stored."""
        rules.check_text("thread_id", thread_id)
        rules.check_metadata(metadata)
        return await self._create_thread(thread_id, user_id, metadata or {}, config or {}, hidden)

    @abstractmethod
    async def get_thread(self, thread_id: str) -> ThreadRow | None: ...

    @abstractmethod
    async def get_threads(self, thread_ids: Sequence[str]) -> tuple[ThreadRow, ...]:
        """Those of these that are there and not hidden, in any order, at a cost that other threads do not raise."""

    @abstractmethod
    async def get_thread_head(self, thread_id: str) -> ThreadHead | None: ...

    async def update_thread(
        self,
        thread_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> ThreadRow | None:
        """Merge the given keys into metadata and config (top level). None: no such thread."""
        rules.check_metadata(metadata)
        return await self._update_thread(thread_id, metadata or {}, config or {})

    @abstractmethod
    async def delete_thread(self, thread_id: str) -> bool:
        """Delete a thread with its runs. False: unknown, or one of them is not closed."""

    @abstractmethod
    async def settle_thread(self, thread_id: str, outcome: RunOutcome, *, if_state_of: datetime | None = None) -> bool:
        """Leave in a thread what a run with this outcome would. False: unknown, or busy, or its `state_updated_at` is
        not `if_state_of` any more.
        """

    @abstractmethod
    async def expired_threads(self, *, limit: int = 100) -> Sequence[str]:
        """The ids of threads that were to be kept for some time after their last run, which is over."""

    async def search_threads(
        self,
        *,
        ids: Sequence[str] | None = None,
        unowned: bool = False,
        status: ThreadStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        sort_by: ThreadOrder = "created_at",
        sort_order: Literal["asc", "desc"] = "desc",
    ) -> tuple[ThreadRow, ...]:
        """Threads that match everything given; never a hidden one. `unowned`: only those without a `user_id`."""
        rules.page(limit, offset)
        rules.known("sort_by", sort_by, ("created_at", "updated_at", "thread_id", "status"))
        rules.known("sort_order", sort_order, ("asc", "desc"))
        found = await self._search_threads(
            ids, unowned, status, metadata or {}, f"{sort_by}_{sort_order}", limit, offset
        )
        return tuple(found)

    async def count_threads(
        self,
        *,
        ids: Sequence[str] | None = None,
        unowned: bool = False,
        status: ThreadStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """How many threads `search_threads` would find without a limit."""
        return await self._count_threads(ids, unowned, status, metadata or {})

    # What a backend fills

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def _get(self, run_id: str) -> RunRecord | None: ...

    @abstractmethod
    async def _list(self, thread_id: str, limit: int, offset: int, status: RunStatus | None) -> Sequence[RunRecord]: ...

    @abstractmethod
    async def _unfinished_of(self, user_id: str | None, status: RunStatus | None) -> Sequence[Unfinished]: ...

    @abstractmethod
    async def _cancel(self, run_id: str, action: CancelAction) -> Cancelled | None: ...

    @abstractmethod
    async def _admit(self, run: NewRun, lease_seconds: float) -> Admission: ...

    @abstractmethod
    async def _create_thread(
        self, thread_id: str, user_id: str | None, metadata: Mapping[str, Any], config: Mapping[str, Any], hidden: bool
    ) -> ThreadRow | None: ...

    @abstractmethod
    async def _update_thread(
        self, thread_id: str, metadata: Mapping[str, Any], config: Mapping[str, Any]
    ) -> ThreadRow | None: ...

    @abstractmethod
    async def _search_threads(
        self,
        ids: Sequence[str] | None,
        unowned: bool,
        status: ThreadStatus | None,
        metadata: Mapping[str, Any],
        order: str,
        limit: int,
        offset: int,
    ) -> Sequence[ThreadRow]: ...

    @abstractmethod
    async def _count_threads(
        self, ids: Sequence[str] | None, unowned: bool, status: ThreadStatus | None, metadata: Mapping[str, Any]
    ) -> int: ...
