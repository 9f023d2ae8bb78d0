"""The rules that every registry backend follows, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import RunConflictError
from .documents import to_json
from .records import CancelAction, Json, MultitaskStrategy, RunOutcome, RunStatus, ThreadStatus

UNFINISHED: tuple[RunStatus, ...] = ("pending", "running")
TERMINAL: tuple[RunStatus, ...] = ("success", "error", "interrupted")

CLOSE_WITHIN_SECONDS = 5.0  # how long a sweeper has to close what it was named, before another one is

ORPHANED: Json = {"error": "RunOrphaned", "message": "the replica that executed this run is gone"}
SHUTDOWN: Json = {"error": "ReplicaShutdown", "message": "the replica that executed this run was shut down"}


def is_terminal(status: RunStatus | None) -> bool:
    return status in TERMINAL


def may_begin(earlier_unfinished: int) -> bool:
    """A run begins when every run that was admitted to its thread before it is over."""
    return earlier_unfinished == 0


def check_strategy(strategy: MultitaskStrategy) -> None:
    """Raises `ValueError` for a strategy that does not exist."""
    if strategy not in ("enqueue", "reject", "interrupt", "rollback"):
        raise ValueError(f"multitask_strategy must be enqueue, reject, interrupt or rollback, not {strategy!r}")


def check_action(action: CancelAction) -> None:
    """Raises `ValueError` for an action that does not exist."""
    if action not in ("interrupt", "rollback"):
        raise ValueError(f"action must be interrupt or rollback, not {action!r}")


def action_on_others(strategy: MultitaskStrategy) -> CancelAction | None:
    """What a strategy does to the earlier unfinished runs of the thread."""
    return strategy if strategy in ("interrupt", "rollback") else None


def stronger(one: CancelAction | None, other: CancelAction) -> CancelAction:
    """A run that was asked to be rolled back is, whatever else is asked of it."""
    return "rollback" if "rollback" in (one, other) else other


def check_admission(strategy: MultitaskStrategy, thread_id: str, unfinished: int) -> None:
    """Raises `RunConflictError` when the thread is busy and the strategy is `reject`."""
    if strategy == "reject" and unfinished:
        raise RunConflictError(f"thread {thread_id!r} has an unfinished run")


def thread_status(unfinished: int, otherwise: ThreadStatus) -> ThreadStatus:
    """A thread is busy while one of its runs is pending or running."""
    return "busy" if unfinished else otherwise


def merged(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**old, **(new or {})}


def replaced(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What merging `new` into `old` changes: by key, the value before and the one after."""
    return {key: [old.get(key), value] for key, value in new.items() if old.get(key) != value}


def taken_back(metadata: Mapping[str, Any], changes: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Without these changes, as far as nobody has changed them again."""
    kept = {key: value for key, value in metadata.items() if key not in changes or changes[key][1] != value}
    back = {key: before for key, (before, after) in changes.items() if metadata.get(key) == after}
    return {**kept, **{key: before for key, before in back.items() if before is not None}}


def contains(document: Any, part: Any) -> bool:
    """Whether `part` is in `document`, as PostgreSQL's `@>` has it: objects by key, arrays by element, at any depth."""
    if isinstance(part, Mapping):
        return isinstance(document, Mapping) and all(
            key in document and contains(document[key], value) for key, value in part.items()
        )
    if isinstance(part, list):
        return isinstance(document, list) and all(any(contains(one, wanted) for one in document) for wanted in part)
    return isinstance(document, bool) == isinstance(part, bool) and bool(document == part)


def succeeded(values: Json | None, interrupts: Mapping[str, Any], *, stopped: bool = False) -> RunOutcome:
    """A graph that stopped at an interrupt, or before or after a node, succeeded and leaves an interrupted thread."""
    status: ThreadStatus = "interrupted" if stopped or interrupts else "idle"
    return RunOutcome("success", status, values=values, interrupts=interrupts)


def failed(error: Json) -> RunOutcome:
    return RunOutcome("error", "error", error=error)


def cancelled() -> RunOutcome:
    return RunOutcome("interrupted", "interrupted")


def end_reason(status: RunStatus, *, orphaned: bool = False) -> str:
    """The reason that END carries."""
    if orphaned:
        return "orphaned"
    return {"success": "done", "interrupted": "cancelled"}.get(status, "error")


def check_text(name: str, value: str) -> None:
    """Raises `ValueError` for what a database cannot keep as an id."""
    if not value or "\0" in value:
        raise ValueError(f"{name} must be a text that is not empty and has no NUL, not {value!r}")


def check_metadata(metadata: Json | None) -> None:
    """Raises `ValueError` for a NUL in what is searched: PostgreSQL's jsonb has none."""
    if metadata and "\\u0000" in to_json(metadata).replace("\\\\", ""):
        raise ValueError("metadata must not have a NUL")


def page(limit: int, offset: int) -> None:
    """Raises `ValueError` unless 1 <= limit <= 1000 and offset >= 0."""
    if not 1 <= limit <= 1000 or offset < 0:
        raise ValueError(f"limit must be 1 to 1000 and offset at least 0, not {limit} and {offset}")


def known(name: str, value: str | None, choices: Iterable[str]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
