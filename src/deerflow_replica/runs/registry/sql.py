"""The registry on a database, written once: each operation is a generator that yields named statements.

The backends differ in their SQL files and in how they run such a generator inside one transaction.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from ...errors import RunConflictError
from . import rules
from .base import RunRegistry
from .documents import from_json, to_json
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

T = TypeVar("T")
Row = Mapping[str, Any]
Step = tuple[str, dict[str, Any]]
Steps = Generator[Step, list[Row], T]

THREADS = "deerflow_replica_threads"
RUNS = "deerflow_replica_runs"


class SqlRunRegistry(RunRegistry):
    """What the databases share. A backend runs the steps of one operation in one transaction."""

    @abstractmethod
    async def _transaction(self, steps: Callable[[], Steps[T]], *, retry: bool = True) -> T:
        """Run the statements that `steps()` yields, sending back their rows. `retry`: it may safely run twice."""

    # Runs

    async def _get(self, run_id: str) -> RunRecord | None:
        rows = await self._rows("get_run", run_id=run_id)
        return _record(rows[0]) if rows else None

    async def _list(self, thread_id: str, limit: int, offset: int, status: RunStatus | None) -> Sequence[RunRecord]:
        rows = await self._rows("list_runs", thread_id=thread_id, limit=limit, offset=offset, status=status)
        return [_record(row) for row in rows]

    async def _unfinished_of(self, user_id: str | None, status: RunStatus | None) -> Sequence[Unfinished]:
        rows = await self._rows("unfinished_of", user_id=user_id, status=status)
        return [Unfinished(row["run_id"], row["thread_id"], bool(row["hidden"])) for row in rows]

    async def _admit(self, run: NewRun, lease_seconds: float) -> Admission:
        return await self._transaction(lambda: _admission(run, lease_seconds), retry=False)

    async def start(self, lease: Lease, *, lease_seconds: float) -> RunStatus | None:
        return await self._transaction(lambda: _start(lease, lease_seconds))

    async def renew(self, leases: Sequence[Lease], *, lease_seconds: float) -> Mapping[str, CancelAction | None]:
        if not leases:
            return {}
        rows = await self._rows(
            "renew",
            run_ids=[lease.run_id for lease in leases],
            owners=[lease.owner for lease in leases],
            fences=[lease.fence for lease in leases],
            lease_seconds=lease_seconds,
        )
        return {row["run_id"]: row["cancel_action"] for row in rows}

    async def finish(self, lease: Lease, outcome: RunOutcome) -> bool:
        return await self._transaction(lambda: _finish(lease, outcome), retry=False)

    async def _cancel(self, run_id: str, action: CancelAction) -> Cancelled | None:
        return await self._transaction(lambda: _cancel(run_id, action), retry=False)

    async def close_run(self, run_id: str) -> None:
        await self._rows("close_run", run_id=run_id)

    async def sweep(self, *, limit: int = 100) -> Sequence[Unclosed]:
        lapsed = await self._rows("find_lapsed", limit=limit)
        taken = [await self._transaction(partial(_take_over, row["run_id"]), retry=False) for row in lapsed]
        return [unclosed for unclosed in taken if unclosed is not None]

    async def delete(self, run_id: str) -> bool:
        return bool(await self._rows("delete_run", run_id=run_id))

    # Threads

    async def _create_thread(
        self, thread_id: str, user_id: str | None, metadata: Mapping[str, Any], config: Mapping[str, Any], hidden: bool
    ) -> ThreadRow | None:
        rows = await self._transaction(
            lambda: _one("insert_thread", _new_thread(thread_id, user_id, metadata, config, hidden=hidden)), retry=False
        )
        return _thread(rows[0]) if rows else None

    async def get_thread(self, thread_id: str) -> ThreadRow | None:
        rows = await self._rows("get_thread", thread_id=thread_id)
        return _thread(rows[0]) if rows else None

    async def get_thread_head(self, thread_id: str) -> ThreadHead | None:
        rows = await self._rows("get_thread_head", thread_id=thread_id)
        return _head(rows[0]) if rows else None

    async def _update_thread(
        self, thread_id: str, metadata: Mapping[str, Any], config: Mapping[str, Any]
    ) -> ThreadRow | None:
        return await self._transaction(lambda: _update_thread(thread_id, metadata, config))

    async def delete_thread(self, thread_id: str) -> bool:
        return bool(await self._rows("delete_thread", thread_id=thread_id))

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
        match = _match(ids, unowned, status, metadata)
        rows = await self._rows("search_threads", **match, order=order, limit=limit, offset=offset)
        return [_thread(row) for row in rows]

    async def _count_threads(
        self, ids: Sequence[str] | None, unowned: bool, status: ThreadStatus | None, metadata: Mapping[str, Any]
    ) -> int:
        rows = await self._rows("count_threads", **_match(ids, unowned, status, metadata))
        return int(rows[0]["found"])

    async def _rows(self, statement: str, **values: Any) -> list[Row]:
        return await self._transaction(lambda: _one(statement, values))


# The operations


def _one(statement: str, values: dict[str, Any]) -> Steps[list[Row]]:
    return (yield statement, values)


def _admission(run: NewRun, lease_seconds: float) -> Steps[Admission]:
    if run.create_thread:
        yield "insert_thread", _new_thread(run.thread_id, run.user_id, {}, {}, hidden=run.hidden)
    threads = yield "lock_thread", {"thread_id": run.thread_id}
    if not threads:
        raise LookupError(f"thread {run.thread_id!r} does not exist")
    unfinished = yield from _unfinished(run.thread_id)
    rules.check_admission(run.multitask_strategy, run.thread_id, unfinished)
    begins = run.start and rules.may_begin(unfinished)
    rows = yield "insert_run", _new_run(run, "running" if begins else "pending", lease_seconds)
    if not rows:
        raise RunConflictError(f"run {run.run_id!r} exists already")
    metadata = rules.merged(document(threads[0]["metadata"]), run.thread_metadata)
    yield "set_busy", {"thread_id": run.thread_id, "metadata": to_json(metadata)}
    return Admission(_record(rows[0]), Lease(run.run_id, run.owner, rows[0]["fence"]))


def _start(lease: Lease, lease_seconds: float) -> Steps[RunStatus | None]:
    yield "lock_thread_of_run", {"run_id": lease.run_id}
    yield "begin_run", {**_held(lease), "lease_seconds": lease_seconds}
    rows = yield "status_under_lease", _held(lease)
    return rows[0]["status"] if rows else None


def _finish(lease: Lease, outcome: RunOutcome) -> Steps[bool]:
    yield "lock_thread_of_run", {"run_id": lease.run_id}
    rows = yield "finish_run", {**_held(lease), "status": outcome.status, "error": _text(outcome.error)}
    if rows:
        yield from _leave_thread(rows[0]["thread_id"], outcome)
    return bool(rows)


def _cancel(run_id: str, action: CancelAction) -> Steps[Cancelled | None]:
    yield "lock_thread_of_run", {"run_id": run_id}
    ended = yield "cancel_pending", {"run_id": run_id}
    if ended:
        yield from _leave_thread(ended[0]["thread_id"], rules.cancelled())
        return Cancelled(run_id, ended[0]["owner"], action, ended=True)
    asked = yield "cancel_running", {"run_id": run_id, "action": action}
    return Cancelled(run_id, asked[0]["owner"], action, ended=False) if asked else None


def _take_over(run_id: str) -> Steps[Unclosed | None]:
    if not (yield "try_lock_thread_of_run", {"run_id": run_id}):
        return None
    hold = {"run_id": run_id, "lease_seconds": rules.CLOSE_WITHIN_SECONDS}
    orphans = yield "orphan_run", {**hold, "error": to_json(rules.ORPHANED)}
    if orphans:
        yield from _leave_thread(orphans[0]["thread_id"], rules.failed(rules.ORPHANED))
    rows = orphans or (yield "hold_unclosed", hold)
    return _unclosed(rows[0], orphaned=bool(orphans)) if rows else None


def _leave_thread(thread_id: str, outcome: RunOutcome) -> Steps[None]:
    unfinished = yield from _unfinished(thread_id)
    yield (
        "leave_thread",
        {
            "thread_id": thread_id,
            "status": rules.thread_status(unfinished, outcome.thread_status),
            "error": _text(outcome.error),
            "values": _text(outcome.values),
            "interrupts": to_json(outcome.interrupts),
        },
    )


def _unfinished(thread_id: str) -> Steps[int]:
    rows = yield "count_unfinished", {"thread_id": thread_id}
    return int(rows[0]["unfinished"])


def _update_thread(thread_id: str, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Steps[ThreadRow | None]:
    rows = yield "lock_thread", {"thread_id": thread_id}
    if not rows:
        return None
    changes = {
        "metadata": to_json(rules.merged(document(rows[0]["metadata"]), metadata)),
        "config": to_json(rules.merged(document(rows[0]["config"]), config)),
    }
    rows = yield "update_thread", {"thread_id": thread_id, **changes}
    return _thread(rows[0])


# Parameters and rows


def _held(lease: Lease) -> dict[str, Any]:
    return {"run_id": lease.run_id, "owner": lease.owner, "fence": lease.fence}


def _new_run(run: NewRun, status: RunStatus, lease_seconds: float) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
        "status": status,
        "metadata": to_json(run.metadata),
        "kwargs": to_json(run.kwargs),
        "multitask_strategy": run.multitask_strategy,
        "owner": run.owner,
        "lease_seconds": lease_seconds,
    }


def _new_thread(
    thread_id: str, user_id: str | None, metadata: Mapping[str, Any], config: Mapping[str, Any], *, hidden: bool
) -> dict[str, Any]:
    return {
        "thread_id": thread_id,
        "user_id": user_id,
        "hidden": hidden,
        "metadata": to_json(metadata),
        "config": to_json(config),
    }


def _match(
    ids: Sequence[str] | None, unowned: bool, status: ThreadStatus | None, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "ids": None if ids is None else list(ids),
        "unowned": unowned,
        "status": status,
        "metadata": to_json(metadata),
    }


def _text(document: Mapping[str, Any] | None) -> str | None:
    return None if document is None else to_json(document)


def document(value: Any) -> Any:
    return from_json(value) if isinstance(value, str) else value


def time_of(value: datetime | float) -> datetime:
    return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)


def _record(row: Row) -> RunRecord:
    return RunRecord(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        assistant_id=row["assistant_id"],
        status=row["status"],
        metadata=document(row["metadata"]),
        kwargs=document(row["kwargs"]),
        multitask_strategy=row["multitask_strategy"],
        error=document(row["error"]),
        created_at=time_of(row["created_at"]),
        updated_at=time_of(row["updated_at"]),
        owner=row["owner"],
    )


def _unclosed(row: Row, *, orphaned: bool) -> Unclosed:
    return Unclosed(row["run_id"], row["thread_id"], row["status"], document(row["error"]), orphaned)


def _head(row: Row) -> ThreadHead:
    return ThreadHead(
        thread_id=row["thread_id"],
        user_id=row["user_id"],
        status=row["status"],
        hidden=bool(row["hidden"]),
        metadata=document(row["metadata"]),
    )


def _thread(row: Row) -> ThreadRow:
    return ThreadRow(
        thread_id=row["thread_id"],
        user_id=row["user_id"],
        status=row["status"],
        hidden=bool(row["hidden"]),
        metadata=document(row["metadata"]),
        config=document(row["config"]),
        values=document(row["values"]),
        interrupts=document(row["interrupts"]),
        error=document(row["error"]),
        created_at=time_of(row["created_at"]),
        updated_at=time_of(row["updated_at"]),
        state_updated_at=time_of(row["state_updated_at"]),
    )
