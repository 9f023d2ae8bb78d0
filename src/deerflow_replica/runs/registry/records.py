"""What the registry stores and answers: rows, leases and answers, all frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

RunStatus = Literal["pending", "running", "success", "error", "interrupted"]
ThreadStatus = Literal["idle", "busy", "interrupted", "error"]
MultitaskStrategy = Literal["enqueue", "reject", "interrupt", "rollback"]
CancelAction = Literal["interrupt", "rollback"]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRow:
    """One thread. `user_id` is None when nobody owns it; a `hidden` one belongs to a stateless run.

    `values` and `interrupts` (by task id) are those at the end of the last run. Times are aware, by the server's clock.
    """

    thread_id: str
    user_id: str | None = None
    status: ThreadStatus = "idle"
    hidden: bool = False
    metadata: Json = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    values: Json | None = None
    interrupts: Json = field(default_factory=dict)
    error: Json | None = None
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadHead:
    """What a thread is, without what it holds: cheap to read, however large its values are."""

    thread_id: str
    user_id: str | None
    status: ThreadStatus
    hidden: bool
    metadata: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run. `owner` is the id of the replica that executes it, `error` is `{"error", "message"}` of a failed one."""

    run_id: str
    thread_id: str
    assistant_id: str | None = None
    status: RunStatus
    metadata: Json = field(default_factory=dict)
    kwargs: Json = field(default_factory=dict)
    multitask_strategy: MultitaskStrategy = "enqueue"
    error: Json | None = None
    created_at: datetime
    updated_at: datetime
    owner: str


@dataclass(frozen=True, slots=True)
class OwnedRun:
    """A run, and what the row of its thread says: whose it is, and whether it is `hidden`."""

    run: RunRecord
    user_id: str | None
    hidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be admitted. With `create_thread`, an unknown thread is created for `user_id`.

    `thread_metadata` is merged into the thread's, known or new. With `start` the run begins in the same transaction
    if it is first in line. It waits for `after_seconds` at least, and lets later runs of its thread pass meanwhile.
    With `keep_seconds` the thread expires so long after its last run ended.
    """

    run_id: str
    thread_id: str
    owner: str
    user_id: str | None = None
    assistant_id: str | None = None
    metadata: Json = field(default_factory=dict)
    kwargs: Json = field(default_factory=dict)
    multitask_strategy: MultitaskStrategy = "enqueue"
    thread_metadata: Json = field(default_factory=dict)
    create_thread: bool = True
    hidden: bool = False
    start: bool = True
    after_seconds: float = 0.0
    keep_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to execute a run and to write its status: valid while owner and fence are those of the row."""

    run_id: str
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that is not over, and where it is."""

    run_id: str
    thread_id: str
    hidden: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pending run whose turn has come, and the replica that is to begin it."""

    run_id: str
    owner: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancellation that was taken: `ended` when the run was still pending and is now over; then `next` may begin."""

    run_id: str
    thread_id: str
    owner: str
    action: CancelAction
    ended: bool
    next: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted run and its lease; `record.status` is `running` if it began at once, else `pending`.

    `cancelled` are the earlier runs of the thread that its strategy asked to end.
    """

    record: RunRecord
    lease: Lease
    cancelled: tuple[Cancelled, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """A run is over; `next` is the run of its thread that may begin now."""

    thread_id: str
    next: Waiting | None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended, and what it leaves in its thread.

    `thread_status` is the thread's status if no further run waits; `values` None leaves the thread's values alone.
    """

    status: RunStatus
    thread_status: ThreadStatus
    error: Json | None = None
    values: Json | None = None
    interrupts: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unclosed:
    """A run that is over and whose stream still needs its end: `error` is published first when there is one.

    An orphaned one was ended by this sweep; `next` is the run of its thread that may begin now.
    """

    run_id: str
    thread_id: str
    status: RunStatus
    error: Json | None
    orphaned: bool
    next: Waiting | None = None
