"""From a run's stream to the frames that a client gets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..errors import ReplicaError, StreamError
from ..runs.registry.rules import ORPHANED, is_terminal
from ..runs.tail import ends_with_error, latest_event_id
from ..stream import END_SENTINEL, HEARTBEAT_SENTINEL, StreamEvent, StreamGap, encode_sse
from .answers import encode_json
from .cursors import plan
from .sse import StreamCutError

if TYPE_CHECKING:
    from ..replica import Replica
    from ..runs.registry.records import RunRecord
    from ..stream import StreamBridge

Item = StreamEvent | StreamGap
Wanted = Callable[[str], bool]

_FIRST = "0-0"
_LOOK_AGAIN_SECONDS = 0.5


class RunReader:
    """One subscription to a run's stream, from its first event on or from a cursor."""

    def __init__(self, bridge: StreamBridge, run_id: str, last_event_id: str | None = _FIRST) -> None:
        self._items = bridge.subscribe(run_id, last_event_id=last_event_id, heartbeat_interval=math.inf)
        self._first: asyncio.Future[Item] | None = None

    async def begin(self) -> None:
        """Subscribe now, not at the first read."""
        self._first = asyncio.ensure_future(anext(self._items))
        await asyncio.sleep(0)

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        if self._first is None:
            return await anext(self._items)
        first, self._first = self._first, None
        try:
            return await first
        except asyncio.CancelledError:
            await _settled(first)
            raise

    async def aclose(self) -> None:
        if self._first is not None:
            await _settled(self._first)
        await self._items.aclose()


async def created_frames(replica: Replica, run_id: str, reader: RunReader, *, end_event: bool) -> AsyncGenerator[bytes]:
    """All frames of a run that was just created."""
    frames = _frames(replica, run_id, reader, _everything, end_event=end_event)
    async with aclosing(reader), aclosing(frames):
        async for frame in frames:
            yield frame


async def joined_frames(
    replica: Replica, run: RunRecord, last_event_id: str | None, wanted: Wanted, *, end_event: bool
) -> AsyncGenerator[bytes]:
    """The frames of a run for a client that joins, or comes back with the last id it got."""
    over = is_terminal(run.status)
    retained = not over or await _reading(replica.bridge.stream_exists(run.run_id))
    match plan(last_event_id, over=over, retained=retained):
        case "nothing":
            return
        case "gap":
            yield gap_frame(StreamGap(last_event_id, None, None))
            return
        case "now":
            cursor = await _reading(latest_event_id(replica.bridge, run.run_id))
        case "all":
            cursor = _FIRST
        case "after":
            cursor = last_event_id
    reader = RunReader(replica.bridge, run.run_id, cursor)
    frames = _frames(replica, run.run_id, reader, wanted, end_event=end_event)
    async with aclosing(reader), aclosing(frames):
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


async def _frames(
    replica: Replica, run_id: str, reader: RunReader, wanted: Wanted, *, end_event: bool
) -> AsyncGenerator[bytes]:
    """Frames up to the run's end. `StreamCutError` when the stream stops before it."""
    async for item in _items(reader):
        if item is END_SENTINEL:
            break
        if item is HEARTBEAT_SENTINEL:
            continue
        if isinstance(item, StreamGap):
            yield gap_frame(item)
            return
        if wanted(item.event):
            yield encode_sse(item)
        if item.event == "error":
            return
    else:
        raise StreamCutError("the stream stopped before the run's end")
    error = await _orphan_error(replica, run_id)
    if error is not None:
        yield _control("error", error)
    elif end_event:
        yield encode_sse(END_SENTINEL)


async def _items(reader: RunReader) -> AsyncGenerator[Item]:
    try:
        async for item in reader:
            yield item
    except StreamError as error:
        raise StreamCutError("the stream server cannot be reached") from error


async def _orphan_error(replica: Replica, run_id: str) -> dict[str, Any] | None:
    """The error of a run whose replica died, when its stream has none: its END was appended by a reader's process."""
    orphaned = await _reading(replica.bridge.end_reason(run_id)) == "orphaned"
    if not orphaned or await _reading(ends_with_error(replica.bridge, run_id)):
        return None
    run = await _swept(replica, run_id)
    return dict((run.error if run is not None else None) or ORPHANED)


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


async def _settled(future: asyncio.Future[Item]) -> None:
    future.cancel()
    await asyncio.gather(future, return_exceptions=True)


def _control(event: str, data: Any) -> bytes:
    """A frame that is not in the stream: without an id, it does not move the client's cursor."""
    return b"event: " + event.encode() + b"\ndata: " + encode_json(data) + b"\n\n"


def _everything(event: str) -> bool:
    return True
