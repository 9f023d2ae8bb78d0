"""Run a graph and publish what it streams."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langgraph.channels import UntrackedValue
from langgraph.pregel import Pregel

from ..errors import StreamError
from .events import INTERRUPT, EventTranslator, interrupts_of

if TYPE_CHECKING:
    from ..stream.base import StreamBridge

_LOG = logging.getLogger(__name__)
_LOGGED = 10_000  # characters, of each end
_LONGEST_MESSAGE = 10_000  # characters

Publish = Callable[[str, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a graph stopped: `values` is its last state, `interrupts` what it waits for when it was interrupted."""

    run_id: str
    status: Literal["success", "interrupted"]
    values: Any
    interrupts: tuple[Any, ...] = ()


async def stream_run(
    graph: Any,
    input: Any,
    *,
    bridge: StreamBridge,
    run_id: str,
    context: Any = None,
    config: Mapping[str, Any] | None = None,
    stream_mode: str | Sequence[str] = "values",
    subgraphs: bool = False,
    interrupt_before: str | Sequence[str] | None = None,
    interrupt_after: str | Sequence[str] | None = None,
    durability: str | None = None,
) -> RunResult:
    """Run `graph` to its end and publish `metadata`, the events of the requested modes, and END.

    END's reason is `done`; `error`, after an `error` event, when the graph raises, which is then raised here; or
    `cancelled` when this task is. Raises `ValueError` for an unknown mode, before anything is published, and
    `StreamError` when events cannot be stored.
    """
    graph_run = GraphRun(
        graph, input, run_id, context, config, stream_mode, subgraphs, interrupt_before, interrupt_after, durability
    )

    async def publish(event: str, data: Any) -> None:
        await bridge.publish(run_id, event, data)

    try:
        await publish("metadata", first_event(run_id))
        result = await graph_run.publish_to(publish)
    except asyncio.CancelledError:
        await _end_after(bridge, run_id, None, "cancelled")
        raise
    except Exception as error:
        await _end_after(bridge, run_id, error_data(error), "error")
        raise
    await bridge.publish_end(run_id, reason="done")
    return result


@dataclass
class GraphRun:
    """One execution of a graph, not yet begun. `ValueError` for an unknown mode."""

    graph: Any
    input: Any
    run_id: str
    context: Any = None
    config: Mapping[str, Any] | None = None
    stream_mode: str | Sequence[str] = "values"
    subgraphs: bool = False
    interrupt_before: str | Sequence[str] | None = None
    interrupt_after: str | Sequence[str] | None = None
    durability: str | None = None

    def __post_init__(self) -> None:
        self._translator = EventTranslator(self.stream_mode)
        self._values: Any = None
        self._interrupts: list[Any] | None = None

    async def publish_to(self, publish: Publish) -> RunResult:
        """Run the graph and publish what it streams, nothing else. Its own exception passes."""
        async with aclosing(self._stream()) as chunks:
            async for chunk in chunks:
                namespace, mode, data = chunk if self.subgraphs else ((), *chunk)
                self._note(namespace, mode, data)
                for event, event_data in self._translator.events(namespace, mode, data):
                    await publish(event, event_data)
        status: Literal["success", "interrupted"] = "success" if self._interrupts is None else "interrupted"
        return RunResult(self.run_id, status, self._values, tuple(self._interrupts or ()))

    def _stream(self) -> Any:
        optional = {
            "interrupt_before": self.interrupt_before,
            "interrupt_after": self.interrupt_after,
            "durability": self.durability,
        }
        return self.graph.astream(
            self.input,
            self.config,
            context=self.context,
            stream_mode=self._translator.modes(),
            subgraphs=self.subgraphs,
            output_keys=streamed_channels(self.graph),
            **{name: value for name, value in optional.items() if value is not None},
        )

    def _note(self, namespace: Sequence[str], mode: str, data: Any) -> None:
        if namespace:
            return
        if mode == "values":
            self._values = _without_interrupts(data)
        elif mode == "updates" and (interrupts := interrupts_of(data)) is not None:
            self._interrupts = [*(self._interrupts or ()), *interrupts]


def streamed_channels(graph: Any) -> str | list[str] | None:
    """What the graph streams of its state; None: all of it.

    A channel that is neither checkpointed nor part of the output is a note of the run to itself.
    """
    if not isinstance(graph, Pregel) or isinstance(graph.stream_channels_asis, str):
        return None
    output = graph.output_channels
    return [
        name
        for name in graph.stream_channels_asis
        if name in output or not isinstance(graph.channels[name], UntrackedValue)
    ]


def first_event(run_id: str) -> dict[str, Any]:
    """The data of `metadata`, which every stream begins with."""
    return {"run_id": run_id, "attempt": 1}


def traceback_text(error: BaseException) -> str:
    """Where it was raised, for a log: text that any handler can write, without the middle of a huge message."""
    text = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 2 * _LOGGED else f"{text[:_LOGGED]}\n[...]\n{text[-_LOGGED:]}"


def error_data(error: BaseException) -> dict[str, str]:
    """How an exception is told: its class and its message, which an event and a row can always hold."""
    return {"error": type(error).__name__, "message": _message(error)}


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # an exception of the user's may raise anything when it is asked what it is
        return f"its message cannot be read: {type(broken).__name__}"
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}... ({len(text)} characters)"


def _without_interrupts(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: value for key, value in values.items() if key != INTERRUPT}
    return values


async def _end_after(bridge: StreamBridge, run_id: str, error: Mapping[str, str] | None, reason: str) -> None:
    """End the stream of a run that failed. The failure matters more than a bridge that cannot store it."""
    try:
        if error is not None:
            await bridge.publish(run_id, "error", error)
        await bridge.publish_end(run_id, reason=reason)
    except StreamError as unpublished:
        _LOG.warning("run %s: its end (%s) could not be published: %s", run_id, reason, unpublished)
