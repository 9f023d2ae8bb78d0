"""Parameters of the registry's statements, and what their rows mean."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from .documents import from_json, to_json
from .records import (
    Admission,
    Lease,
    NewRun,
    OwnedRun,
    RunRecord,
    RunStatus,
    ThreadHead,
    ThreadRow,
    ThreadStatus,
    Unclosed,
    Waiting,
)

T = TypeVar("T")
Row = Mapping[str, Any]
Step = tuple[str, dict[str, Any]]
Steps = Generator[Step, list[Row], T]
"""One transaction: it yields named statements, and is sent their rows."""


def held(lease: Lease) -> dict[str, Any]:
    return {"run_id": lease.run_id, "owner": lease.owner, "fence": lease.fence}


def new_run(run: NewRun, status: RunStatus, lease_seconds: float, replaced: Mapping[str, Any]) -> dict[str, Any]:
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
        "after_seconds": run.after_seconds or None,
        "replaced": to_json(replaced) if replaced else None,
    }


def new_thread(
    thread_id: str, user_id: str | None, metadata: Mapping[str, Any], config: Mapping[str, Any], *, hidden: bool
) -> dict[str, Any]:
    return {
        "thread_id": thread_id,
        "user_id": user_id,
        "hidden": hidden,
        "metadata": to_json(metadata),
        "config": to_json(config),
    }


def match(
    ids: Sequence[str] | None, unowned: bool, status: ThreadStatus | None, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "ids": None if ids is None else list(ids),
        "unowned": unowned,
        "status": status,
        "metadata": to_json(metadata),
    }


def text(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else to_json(value)


def document(value: Any) -> Any:
    return from_json(value) if isinstance(value, str) else value


def time_of(value: datetime | float) -> datetime:
    return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)


def record(row: Row) -> RunRecord:
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


def owned(row: Row) -> OwnedRun:
    return OwnedRun(record(row), row["owning_user_id"], bool(row["in_hidden"]))


def admission(row: Row) -> Admission:
    return Admission(record(row), Lease(row["run_id"], row["owner"], row["fence"]))


def waiting(rows: Sequence[Row]) -> Waiting | None:
    return Waiting(rows[0]["run_id"], rows[0]["owner"]) if rows else None


def unclosed(row: Row, *, orphaned: bool, following: Waiting | None) -> Unclosed:
    error = document(row["error"])
    return Unclosed(row["run_id"], row["thread_id"], row["status"], error, orphaned, following)


def head(row: Row) -> ThreadHead:
    return ThreadHead(
        thread_id=row["thread_id"],
        user_id=row["user_id"],
        status=row["status"],
        hidden=bool(row["hidden"]),
        metadata=document(row["metadata"]),
    )


def thread(row: Row) -> ThreadRow:
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
