"""What a graph streams, as the events that the LangGraph API sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message
from langgraph.types import StreamMode

INTERRUPT = "__interrupt__"
_MESSAGE_MODES = ("messages", "messages-tuple")
_PLAIN_MODES = ("values", "updates", "custom", "tasks", "checkpoints", "debug")
_ALWAYS: tuple[StreamMode, ...] = ("values", "updates")  # the result and the interrupts are read from these

Event = tuple[str, Any]


def requested_modes(stream_mode: str | Sequence[str]) -> frozenset[str]:
    """The modes as a set. `ValueError` names one that does not exist."""
    modes = frozenset([stream_mode] if isinstance(stream_mode, str) else stream_mode)
    unknown = sorted(modes.difference(_PLAIN_MODES, _MESSAGE_MODES))
    if unknown:
        raise ValueError(f"unknown stream_mode {unknown[0]!r}: one of {', '.join((*_PLAIN_MODES, *_MESSAGE_MODES))}")
    return modes


def graph_modes(requested: frozenset[str]) -> list[StreamMode]:
    """What the graph itself is asked to stream so that `requested` can be answered."""
    modes = {*_ALWAYS, *requested.intersection(_PLAIN_MODES)}
    if requested.intersection(_MESSAGE_MODES):
        modes.add("messages")
    return cast("list[StreamMode]", sorted(modes))


def interrupts_of(chunk: Any) -> tuple[Any, ...] | None:
    """The interrupts that an update carries; an empty tuple for a stop before or after a node, None for no stop."""
    if isinstance(chunk, Mapping) and INTERRUPT in chunk:
        return tuple(chunk[INTERRUPT])
    return None


class EventTranslator:
    """Turns what one run's graph streams into events, in order. Keeps the messages in progress, nothing else."""

    def __init__(self, stream_mode: str | Sequence[str]) -> None:
        self._requested = requested_modes(stream_mode)
        self._only_interrupts = self._requested.isdisjoint(_ALWAYS)
        self._messages: dict[str, BaseMessage] = {}

    def modes(self) -> list[StreamMode]:
        return graph_modes(self._requested)

    def events(self, namespace: Sequence[str], mode: str, chunk: Any) -> Iterator[Event]:
        """The events of one streamed chunk; none when nobody asked for it."""
        if mode == "messages":
            yield from self._message_events(namespace, *chunk)
        elif mode in self._requested or (mode == "updates" and self._only_interrupts and interrupts_of(chunk)):
            yield "|".join([mode, *namespace]), _clean(mode, chunk)

    def _message_events(self, namespace: Sequence[str], message: Any, metadata: Any) -> Iterator[Event]:
        if "messages-tuple" in self._requested:
            yield "|".join(["messages", *namespace]), [message, metadata]
            return
        if message.id not in self._messages:
            yield "messages/metadata", {message.id: {"metadata": metadata}}
        so_far = self._add(message)
        kind = "partial" if isinstance(message, BaseMessageChunk) else "complete"
        yield f"messages/{kind}", [message_chunk_to_message(so_far)]

    def _add(self, message: BaseMessage) -> BaseMessage:
        before = self._messages.get(str(message.id))
        if isinstance(before, BaseMessageChunk) and isinstance(message, BaseMessageChunk):
            message = before + message
        self._messages[str(message.id)] = message
        return message


def shown(interrupts: Iterable[Any]) -> list[dict[str, Any]]:
    """Interrupts as the API shows them."""
    return [{"value": one.value, "id": one.id} for one in interrupts]


def _clean(mode: str, chunk: Any) -> Any:
    if mode in _ALWAYS and (interrupts := interrupts_of(chunk)) is not None:
        return {**chunk, INTERRUPT: shown(interrupts)}
    if mode == "checkpoints":
        return _checkpoint(chunk)
    if mode == "debug" and chunk["type"] == "checkpoint":
        return {**chunk, "payload": _checkpoint(chunk["payload"])}
    return chunk


def _checkpoint(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint as the API shows it: named by ids; a config without the process's own objects in it."""
    config, parent = payload["config"], payload.get("parent_config")
    return {
        **payload,
        "config": _plain_config(config),
        "parent_config": _plain_config(parent),
        "checkpoint": _checkpoint_id(config),
        "parent_checkpoint": _checkpoint_id(parent),
        "tasks": [_task(task) for task in payload["tasks"]],
    }


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task with a subgraph points at that subgraph's checkpoint."""
    shown = {key: value for key, value in task.items() if key != "state"}
    return {**shown, "checkpoint": _checkpoint_id(task.get("state"))}


def _checkpoint_id(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not config:
        return None
    ids = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    return {key: config["configurable"][key] for key in ids if key in config["configurable"]}


def _plain_config(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not config:
        return None
    configurable = {key: value for key, value in config["configurable"].items() if not key.startswith("__")}
    return {
        **{key: config[key] for key in ("tags", "metadata", "run_name") if key in config},
        "configurable": configurable,
    }
