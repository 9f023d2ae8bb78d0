"""How threads, runs, states and assistants look in an answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from langgraph.types import StateSnapshot
from starlette.responses import Response

from ..stream.payload import encode_plain
from .problems import unprocessable

if TYPE_CHECKING:
    from langgraph.types import Interrupt

    from ..runs.registry.assistants import AssistantRow
    from ..runs.registry.records import RunRecord, ThreadRow


def encode_json(content: Any) -> bytes:
    return encode_plain(content)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON by the same table as events: messages as `model_dump()`, dates as ISO 8601."""
    return Response(encode_json(content), status, dict(headers or {}), media_type="application/json")


def thread_answer(row: ThreadRow, select: Collection[str] | None = None) -> dict[str, Any]:
    answer = {
        "thread_id": row.thread_id,
        "created_at": _time(row.created_at),
        "updated_at": _time(row.updated_at),
        "state_updated_at": _time(row.state_updated_at),
        "metadata": dict(row.metadata),
        "status": row.status,
        "config": dict(row.config),
        "values": row.values,
        "interrupts": dict(row.interrupts),
        "error": row.error,
    }
    return answer if select is None else {key: answer[key] for key in answer if key in select}


def run_answer(run: RunRecord) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
        "status": run.status,
        "metadata": dict(run.metadata),
        "kwargs": dict(run.kwargs),
        "multitask_strategy": run.multitask_strategy,
        "created_at": _time(run.created_at),
        "updated_at": _time(run.updated_at),
    }


def assistant_answer(row: AssistantRow, select: Collection[str] | None = None) -> dict[str, Any]:
    answer = {
        "assistant_id": row.assistant_id,
        "graph_id": row.graph_id,
        "name": row.name,
        "description": row.description,
        "config": dict(row.config),
        "context": dict(row.context),
        "metadata": dict(row.metadata),
        "version": row.version,
        "created_at": _time(row.created_at),
        "updated_at": _time(row.updated_at),
    }
    return answer if select is None else {key: answer[key] for key in answer if key in select}


def state_answer(snapshot: StateSnapshot) -> dict[str, Any]:
    checkpoint, parent = _checkpoint(snapshot.config), _checkpoint(snapshot.parent_config)
    return {
        "values": snapshot.values,
        "next": list(snapshot.next),
        "tasks": [_task(task) for task in snapshot.tasks],
        "metadata": snapshot.metadata,
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [interrupt_answer(interrupt) for interrupt in snapshot.interrupts],
        "checkpoint_id": (checkpoint or {}).get("checkpoint_id"),
        "parent_checkpoint_id": (parent or {}).get("checkpoint_id"),
    }


def state_response(answer: Any, select: Collection[str] | None) -> Response:
    """A state or a list of them, of each only what `select` names; 422 for a state without a JSON form."""
    try:
        return json_response(answer if select is None else _selected(answer, frozenset(select)))
    except TypeError as error:
        raise unprocessable(f"the state has no JSON form: {error.__cause__ or error}") from error


def _selected(answer: Any, select: frozenset[str]) -> Any:
    """`values.messages` is one key of the values."""
    if isinstance(answer, list):
        return [_selected(one, select) for one in answer]
    chosen = {key: value for key, value in answer.items() if key in select}
    parts = {name.removeprefix("values.") for name in select if name.startswith("values.")}
    if parts and "values" not in select and isinstance(answer["values"], Mapping):
        chosen["values"] = {key: value for key, value in answer["values"].items() if key in parts}
    return chosen


def empty_state(thread_id: str, checkpoint_ns: str = "") -> dict[str, Any]:
    """The state of a thread that has never run."""
    return {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": {},
        "created_at": None,
        "checkpoint": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "checkpoint_id": None},
        "parent_checkpoint": None,
        "interrupts": [],
        "checkpoint_id": None,
        "parent_checkpoint_id": None,
    }


def interrupt_answer(interrupt: Interrupt) -> dict[str, Any]:
    return {"value": interrupt.value, "id": interrupt.id}


def _task(task: Any) -> dict[str, Any]:
    nested = task.state if isinstance(task.state, StateSnapshot) else None
    return {
        "id": task.id,
        "name": task.name,
        "path": list(task.path),
        "error": None if task.error is None else str(task.error),
        "interrupts": [interrupt_answer(interrupt) for interrupt in task.interrupts],
        "checkpoint": _checkpoint(task.state) if isinstance(task.state, Mapping) else None,
        "state": None if nested is None else state_answer(nested),
        "result": task.result,
    }


def _checkpoint(config: Any) -> dict[str, Any] | None:
    if not config:
        return None
    ids = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    return {key: config["configurable"][key] for key in ids if key in config["configurable"]}


def _time(moment: datetime) -> str:
    return moment.isoformat()
