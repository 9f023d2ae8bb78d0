"""What a run found at the checkpoints that it goes on from, so that a rollback can put it back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import INTERRUPT

NULL_TASK_ID = "00000000-0000-0000-0000-000000000000"  # LangGraph's, for writes of no task
Write = tuple[str, str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint of an earlier run, and its writes (task id, channel, value) before this one wrote to it."""

    checkpoint_ns: str
    checkpoint_id: str
    writes: tuple[Write, ...]

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [(task_id, channel) for task_id, channel, _ in self.writes]

    def replaceable(self) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
        """By task, the writes of the kind that a saver overwrites: errors, interrupts, answers to them."""
        by_task: dict[str, list[tuple[str, Any]]] = {}
        for task_id, channel, value in self.writes:
            if channel in WRITES_IDX_MAP:
                by_task.setdefault(task_id, []).append((channel, value))
        yield from by_task.items()


class Footprint:
    """Kept by the saver of one run: a checkpoint's writes do not say which run they are from.

    A run that resumes a thread writes to the checkpoint where the thread stopped, which is not its own.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Found] = {}
        self._own: set[tuple[str, str]] = set()
        self._touched: set[tuple[str, str]] = set()
        self._writers: set[str] = set()

    @property
    def touched(self) -> list[Found]:
        """The checkpoints of earlier runs that this one wrote to, as they were."""
        return [self._found[place] for place in self._touched if place in self._found]

    @property
    def is_a_command_alone(self) -> bool:
        """Whether nothing was written but what a command says, before anything was made of it."""
        return self._writers == {NULL_TASK_ID} and not self._own

    def has_read(self, config: Mapping[str, Any], writes: list[Write] | None) -> None:
        place = _place(config)
        if place not in self._own and place not in self._touched:
            self._found[place] = Found(
                *place, tuple((task, channel, _own_list(value)) for task, channel, value in writes or ())
            )

    def has_put(self, config: Mapping[str, Any], checkpoint_id: str) -> None:
        self._own.add((_place(config)[0], checkpoint_id))

    def writes_to(self, config: Mapping[str, Any], task_id: str) -> None:
        self._touched.add(_place(config))
        self._writers.add(task_id)


def older_writes(writes: Iterable[Write]) -> tuple[Write, ...]:
    """Of a checkpoint where a thread stopped and went on, the writes that were there when it stopped: a command's come
    with a run, and a task that asked has answered nothing yet.
    """
    writes = tuple(writes)
    asked = {task_id for task_id, channel, _ in writes if channel == INTERRUPT}
    return tuple(
        (task_id, channel, value)
        for task_id, channel, value in writes
        if task_id != NULL_TASK_ID and (task_id not in asked or channel == INTERRUPT)
    )


def _place(config: Mapping[str, Any]) -> tuple[str, str]:
    where = config["configurable"]
    return where.get("checkpoint_ns", ""), where.get("checkpoint_id") or ""


def _own_list(value: Any) -> Any:
    """The graph appends to the list of answers that it has read."""
    return list(value) if isinstance(value, list) else value
