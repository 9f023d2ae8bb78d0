"""The operations of the registry on a database, each a transaction of named statements.

All that changes the line of a thread locks the thread's row first.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...errors import RunConflictError
from . import rules
from .documents import to_json
from .records import (
    Admission,
    CancelAction,
    Cancelled,
    Ended,
    Lease,
    NewRun,
    RunOutcome,
    RunStatus,
    ThreadRow,
    Unclosed,
    Waiting,
)
from .rows import Row, Steps, admission, document, held, new_run, new_thread, text, thread, unclosed, waiting


def one(statement: str, values: dict[str, Any]) -> Steps[list[Row]]:
    return (yield statement, values)


# The line of a thread


def admit(run: NewRun, lease_seconds: float) -> Steps[Admission]:
    threads = yield from _locked_thread(run)
    unfinished, ahead = yield from _line(run.thread_id)
    rules.check_admission(run.multitask_strategy, run.thread_id, unfinished)
    cancelled = yield from _cancel_earlier(run, unfinished)
    if cancelled:
        _, ahead = yield from _line(run.thread_id)
        threads = yield "lock_thread", {"thread_id": run.thread_id}
    begins = run.start and not run.after_seconds and rules.may_begin(ahead)
    before = document(threads[0]["metadata"])
    replaced = rules.replaced(before, run.thread_metadata)
    rows = yield "insert_run", new_run(run, "running" if begins else "pending", lease_seconds, replaced)
    if not rows:
        raise RunConflictError(f"run {run.run_id!r} exists already")
    metadata = to_json(rules.merged(before, run.thread_metadata))
    yield "set_busy", {"thread_id": run.thread_id, "metadata": metadata, "keep_seconds": run.keep_seconds}
    admitted = admission(rows[0])
    return Admission(admitted.record, admitted.lease, cancelled)


def _locked_thread(run: NewRun) -> Steps[list[Row]]:
    """One that is deleted between the two statements is made again."""
    while True:
        if run.create_thread:
            yield "insert_thread", new_thread(run.thread_id, run.user_id, {}, {}, hidden=run.hidden)
        threads = yield "lock_thread", {"thread_id": run.thread_id}
        if threads:
            return threads
        if not run.create_thread:
            raise LookupError(f"thread {run.thread_id!r} does not exist")


def _cancel_earlier(run: NewRun, unfinished: int) -> Steps[tuple[Cancelled, ...]]:
    action = rules.action_on_others(run.multitask_strategy)
    if action is None or not unfinished:
        return ()
    cancelled = []
    for row in (yield "unfinished_ids", {"thread_id": run.thread_id}):
        answer = yield from _cancel(row["run_id"], action)
        cancelled += [answer] if answer else []
    return tuple(cancelled)


def start(lease: Lease, lease_seconds: float) -> Steps[RunStatus | None]:
    yield "lock_thread_of_run", {"run_id": lease.run_id}
    yield "begin_run", {**held(lease), "lease_seconds": lease_seconds}
    rows = yield "status_under_lease", held(lease)
    return rows[0]["status"] if rows else None


def cancel(run_id: str, action: CancelAction) -> Steps[Cancelled | None]:
    yield "lock_thread_of_run", {"run_id": run_id}
    return (yield from _cancel(run_id, action))


def _cancel(run_id: str, action: CancelAction) -> Steps[Cancelled | None]:
    wish = {"run_id": run_id, "action": action}
    for row in (yield "cancel_pending", wish):
        thread_id = row["thread_id"]
        leave = _rest(row) if action == "rollback" else _leave_unbegun(thread_id, rules.cancelled())
        following = yield from _next(thread_id, (yield from leave))
        return Cancelled(run_id, thread_id, row["owner"], action, ended=True, next=following)
    for row in (yield "cancel_running", wish):
        return Cancelled(run_id, row["thread_id"], row["owner"], row["cancel_action"], ended=False)
    return None


# The end of a run


def finish(lease: Lease, outcome: RunOutcome) -> Steps[Ended | None]:
    yield "lock_thread_of_run", {"run_id": lease.run_id}
    end = {**held(lease), "status": outcome.status, "error": text(outcome.error)}
    for status, leave in _LEAVING:
        for row in (yield "finish_run", {**end, "was": status}):
            left = yield from leave(row["thread_id"], outcome)
            return Ended(row["thread_id"], (yield from _next(row["thread_id"], left)))
    return None


def roll_back(lease: Lease) -> Steps[Ended | None]:
    yield "lock_thread_of_run", {"run_id": lease.run_id}
    for row in (yield "roll_back_run", held(lease)):
        left = yield from _rest(row)
        return Ended(row["thread_id"], (yield from _next(row["thread_id"], left)))
    return None


def close(run_id: str) -> Steps[None]:
    yield "close_run", {"run_id": run_id}
    yield "forget_rolled_back", {"run_id": run_id}


def take_over(run_id: str) -> Steps[Unclosed | None]:
    """End a lapsed run, or take the closing of one that is over."""
    if not (yield "try_lock_thread_of_run", {"run_id": run_id}):
        return None
    hold = {"run_id": run_id, "lease_seconds": rules.CLOSE_WITHIN_SECONDS}
    for status, leave in _LEAVING:
        for row in (yield "orphan_run", {**hold, "was": status, "error": to_json(rules.ORPHANED)}):
            left = yield from leave(row["thread_id"], rules.failed(rules.ORPHANED))
            return unclosed(row, orphaned=True, following=(yield from _next(row["thread_id"], left)))
    for row in (yield "hold_unclosed", hold):
        return unclosed(row, orphaned=False, following=None)
    return None


def adopt(run_id: str, owner: str, lease_seconds: float) -> Steps[Admission | None]:
    yield "lock_thread_of_run", {"run_id": run_id}
    rows = yield "adopt_run", {"run_id": run_id, "owner": owner, "lease_seconds": lease_seconds}
    return admission(rows[0]) if rows else None


# Threads


def settle(thread_id: str, outcome: RunOutcome, if_state_of: datetime | None) -> Steps[bool]:
    if not (yield "lock_thread", {"thread_id": thread_id}):
        return False
    if if_state_of is not None:
        rows = yield "get_thread", {"thread_id": thread_id}
        if thread(rows[0]).state_updated_at != if_state_of:
            return False
    unfinished, _ = yield from _line(thread_id)
    if unfinished:
        return False
    yield from _leave(thread_id, outcome)
    return True


def update_thread(thread_id: str, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Steps[ThreadRow | None]:
    rows = yield "lock_thread", {"thread_id": thread_id}
    if not rows:
        return None
    changes = {
        "metadata": to_json(rules.merged(document(rows[0]["metadata"]), metadata)),
        "config": to_json(rules.merged(document(rows[0]["config"]), config)),
    }
    rows = yield "update_thread", {"thread_id": thread_id, **changes}
    return thread(rows[0])


def delete_thread(thread_id: str) -> Steps[bool]:
    yield "lock_thread", {"thread_id": thread_id}
    return bool((yield "delete_thread", {"thread_id": thread_id}))


def _leave(thread_id: str, outcome: RunOutcome) -> Steps[int]:
    """What a run leaves in its thread. Answers how many others are not over."""
    unfinished, _ = yield from _line(thread_id)
    status = rules.thread_status(unfinished, outcome.thread_status)
    yield (
        "leave_thread",
        {
            "thread_id": thread_id,
            "status": status,
            "resting": outcome.thread_status,
            "error": text(outcome.error),
            "values": text(outcome.values),
            "interrupts": to_json(outcome.interrupts),
        },
    )
    return unfinished


def _leave_unbegun(thread_id: str, outcome: RunOutcome) -> Steps[int]:
    """A run that never began changes nothing of a thread that others are busy with, and no state."""
    unfinished, _ = yield from _line(thread_id)
    if not unfinished:
        values = {"thread_id": thread_id, "status": outcome.thread_status, "error": text(outcome.error)}
        yield "leave_unbegun", values
    return unfinished


def _rest(run: Row) -> Steps[int]:
    """The thread as it was before this run, which is its last one, unless others are busy with it."""
    thread_id = run["thread_id"]
    if changes := document(run["replaced"]):
        rows = yield "lock_thread", {"thread_id": thread_id}
        metadata = rules.taken_back(document(rows[0]["metadata"]), changes)
        yield "set_metadata", {"thread_id": thread_id, "metadata": to_json(metadata)}
    unfinished, _ = yield from _line(thread_id)
    if not unfinished:
        yield "rest_thread", {"thread_id": thread_id}
    return unfinished


def _line(thread_id: str) -> Steps[tuple[int, int]]:
    """How many runs of a thread are not over, and how many of them a new one must wait for."""
    rows = yield "count_unfinished", {"thread_id": thread_id}
    return int(rows[0]["unfinished"]), int(rows[0]["ahead"])


def _next(thread_id: str, unfinished: int) -> Steps[Waiting | None]:
    return waiting((yield "first_in_line", {"thread_id": thread_id})) if unfinished else None


_LEAVING = (("running", _leave), ("pending", _leave_unbegun))
"""What a run does to its thread as it ends, by its status before."""
