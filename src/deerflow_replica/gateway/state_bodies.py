"""What a request says of a thread's states: which checkpoint, which part of it, what to change."""

from __future__ import annotations

from typing import Any

from .bodies import Body, Limit, Metadata, Text


class CheckpointBody(Body):
    """A checkpoint of the thread that the path names: a `thread_id` in it, or anything else, is ignored."""

    checkpoint_ns: Text | None = None
    checkpoint_id: Text | None = None
    checkpoint_map: dict[Text, Text] | None = None

    def place(self) -> dict[str, Any]:
        """As keys of `configurable`."""
        return self.model_dump(include=set(CheckpointBody.model_fields), exclude_none=True)


class BeforeBody(CheckpointBody):
    """The JavaScript SDK says it as a config."""

    configurable: CheckpointBody | None = None


class StateAtCheckpoint(Body):
    checkpoint: CheckpointBody | None = None
    subgraphs: bool | None = None
    select: list[str] | None = None


class UpdateState(Body):
    values: Any = None
    as_node: str | None = None
    checkpoint: CheckpointBody | None = None
    checkpoint_id: Text | None = None

    def place(self) -> dict[str, Any]:
        return _with_id(self.checkpoint, self.checkpoint_id)


class SearchHistory(Body):
    limit: Limit = 10
    before: Text | BeforeBody | None = None
    metadata: Metadata | None = None
    checkpoint: CheckpointBody | None = None
    select: list[str] | None = None

    def place(self) -> dict[str, Any]:
        return _with_id(self.checkpoint, None)

    def before_id(self) -> str | None:
        match self.before:
            case BeforeBody(configurable=CheckpointBody(checkpoint_id=str(named))):
                return named
            case BeforeBody():
                return self.before.checkpoint_id
        return self.before or None


def _with_id(checkpoint: CheckpointBody | None, checkpoint_id: str | None) -> dict[str, Any]:
    place = {} if checkpoint is None else checkpoint.place()
    return place if checkpoint_id is None else {**place, "checkpoint_id": checkpoint_id}
