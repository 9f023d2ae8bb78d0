"""From a run's stream to the frames that a client gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..errors import ReplicaError, StreamError
from ..runs.registry.rules import is_terminal
from ..runs.tail import ends_with_error, latest_event_id
from ..stream import END_SENTINEL, StreamEvent, StreamGap, encode_sse
from .answers import encode_json
from .cursors import plan
from .sse import Frames, StreamCutError

if TYPE_CHECKING:
    from ..replica import Replica
    from ..runs.registry.records import RunRecord
    from ..stream import StreamBridge
    from .gateway import Gateway

Item = StreamEvent | StreamGap
Wanted = Callable[[str], bool]

_FIRST = "0-0"
_LOOK_AGAIN_SECONDS = 0.5


class RunReader:
    """One subscription to a run's stream, from its first event on or from a cursor."""

    def __init__(self, bridge: StreamBridge, run_id: str, last_event_id: str | None = _FIRST) -> None:
        self._batches = bridge.subscribe_batches(run_id, last_event_id=last_event_id)
        self._first: asyncio.Future[Sequence[Item]] | None = None

    async def begin(self) -> None:
        """Subscribe now, not at the first read."""
        self._first = asyncio.ensure_future(anext(self._batches))
        await asyncio.sleep(0)

    def next(self) -> Awaitable[Sequence[Item]]:
        """What came meanwhile, at least one item. Not to be asked after END or a gap."""
        first, self._first = self._first, None
        return anext(self._batches) if first is None else first

    async def aclose(self) -> None:
        if self._first is not None:
            self._first.cancel()
            await asyncio.gather(self._first, return_exceptions=True)
        await self._batches.aclose()


def created_frames(gateway: Gateway, run_id: str, reader: RunReader) -> Frames:
    """All frames of a run that was just created; they close the reader, which has begun."""
    return _Created(_frames(gateway, run_id, reader, _everything), reader)


class _Created:
    """A generator that was never started closes nothing: its reader is closed besides."""

    def __init__(self, frames: AsyncGenerator[bytes], reader: RunReader) -> None:
        self._frames = frames
        self._reader = reader

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._frames

    async def aclose(self) -> None:
        await self._frames.aclose()
        await self._reader.aclose()


async def joined_frames(
    gateway: Gateway, run: RunRecord, last_event_id: str | None, wanted: Wanted
) -> AsyncGenerator[bytes]:
    """The frames of a run for a client that joins, or comes back with the last id it got."""
    bridge, over = gateway.replica.bridge, is_terminal(run.status)
    retained = not over or await _reading(bridge.stream_exists(run.run_id))
    match plan(last_event_id, over=over, retained=retained):
        case "nothing":
            return
        case "gap":
            gateway.tallies.stream_gaps += 1
            yield gap_frame(StreamGap(last_event_id, None, None))
            return
        case "now":
            cursor = await _reading(latest_event_id(bridge, run.run_id))
        case "all":
            cursor = _FIRST if last_event_id == "-1" else last_event_id
        case "after":
            cursor = last_event_id
    async with aclosing(_frames(gateway, run.run_id, RunReader(bridge, run.run_id, cursor), wanted)) as frames:
        async for frame in frames:
            yield frame


def gap_frame(gap: StreamGap) -> bytes:
    """Events were lost: the clients know `error`, and end with it."""
    return _control(
        "error",
        {
            "error": "StreamGap",
            "message": "events after the given id are no longer retained: read the thread's state instead",
            "requested_event_id": gap.requested_event_id,
            "earliest_available_event_id": gap.earliest_available_event_id,
        },
    )


async def _frames(gateway: Gateway, run_id: str, reader: RunReader, wanted: Wanted) -> AsyncGenerator[bytes]:
    """Frames up to the run's end, those that are there at once together. `StreamCutError` when the stream stops
    before it.
    """
    tallies, last = gateway.tallies, None
    async with aclosing(reader):
        while last is None:
            try:
                items = await reader.next()
            except StreamError as error:
                raise StreamCutError("the stream server cannot be reached") from error
            frames, last = _encoded(items, wanted)
            if frames:
                tallies.events_sent += len(frames)
                yield b"".join(frames)
    if isinstance(last, StreamGap):
        tallies.stream_gaps += 1
        yield gap_frame(last)
    elif last is END_SENTINEL and (frame := await _closing(gateway, run_id)):
        yield frame


def _encoded(items: Sequence[Item], wanted: Wanted) -> tuple[list[bytes], Item | None]:
    """The frames of the events, and the item after which nothing follows, if it came."""
    frames: list[bytes] = []
    for item in items:
        if item is END_SENTINEL or isinstance(item, StreamGap):
            return frames, item
        if wanted(item.event):
            frames.append(encode_sse(item))
        if item.event == "error":
            return frames, item
    return frames, None


async def _closing(gateway: Gateway, run_id: str) -> bytes:
    """What follows the last event of a run that did not end with `error`."""
    error = await _orphan_error(gateway.replica, run_id)
    if error is not None:
        return _control("error", error)
    return encode_sse(END_SENTINEL) if gateway.config.gateway.emit_end_event else b""


async def _orphan_error(replica: Replica, run_id: str) -> dict[str, Any] | None:
    """The error of a run whose replica died, when its stream has none: its END was appended by a reader's process."""
    orphaned = await _reading(replica.bridge.end_reason(run_id)) == "orphaned"
    if not orphaned or await _reading(ends_with_error(replica.bridge, run_id)):
        return None
    run = await _swept(replica, run_id)
    return None if run is None or run.error is None else dict(run.error)  # it was rolled back, or ended just before


async def _swept(replica: Replica, run_id: str) -> RunRecord | None:
    """The record, once the run is over: its lease may outlive its stream for a while."""
    try:
        while True:
            await replica._manager.sweep_now()
            run = await replica.runs.get(run_id)
            if run is None or is_terminal(run.status):
                return run
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    except ReplicaError as error:
        raise StreamCutError("the run's end cannot be looked up here") from error


async def _reading(question: Any) -> Any:
    try:
        return await question
    except StreamError as error:
        raise StreamCutError("the stream server cannot be reached") from error


def _control(event: str, data: Any) -> bytes:
    """A frame that is not in the stream: without an id, it does not move the client's cursor."""
    return b"event: " + event.encode() + b"\ndata: " + encode_json(data) + b"\n\n"


def _everything(event: str) -> bool:
    return True
