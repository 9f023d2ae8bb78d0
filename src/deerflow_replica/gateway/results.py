"""What a run left behind: the answer to who waits for its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..errors import StoreUnavailableError, StreamError
from ..runs.registry.rules import is_terminal
from ..runs.tail import latest_event_id
from ..stream import END_SENTINEL, StreamGap
from .answers import encode_json, interrupt_answer
from .frames import RunReader
from .sse import StreamCutError

if TYPE_CHECKING:
    from ..replica import Replica
    from ..runs.registry.records import RunRecord
    from ..stream import StreamBridge
    from .gateway import Gateway

_LOOK_AGAIN_SECONDS = 5.0
_RETRY_SECONDS = 0.2


async def result_frames(gateway: Gateway, run: RunRecord) -> AsyncGenerator[bytes]:
    """One frame, when the run is over: its final values, its error, or `{}`."""
    try:
        ended = await _ended(gateway.replica, run)
        yield encode_json({} if ended is None else await _result(gateway, ended))
    except StoreUnavailableError as error:
        raise StreamCutError("a database cannot be reached") from error


async def _ended(replica: Replica, run: RunRecord) -> RunRecord | None:
    """The record once its run is over; None if it was deleted meanwhile."""
    current: RunRecord | None = run
    while current is not None and not is_terminal(current.status):
        if await _stream_ended(replica.bridge, run.run_id):
            await replica._manager.sweep_now()
        current = await replica.runs.get(run.run_id)
        if current is not None and not is_terminal(current.status):
            await asyncio.sleep(_RETRY_SECONDS)
    return current


async def _stream_ended(bridge: StreamBridge, run_id: str) -> bool:
    """Wait for the stream's end, but not for long: the row is the truth. True if the end came as a dead owner's."""
    try:
        async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
            cursor = await latest_event_id(bridge, run_id)
            async with aclosing(RunReader(bridge, run_id, cursor)) as reader:
                while not _is_last((await reader.next())[-1]):
                    pass
            return await bridge.end_reason(run_id) == "orphaned"
    except (TimeoutError, StreamError):
        return False


def _is_last(item: object) -> bool:
    return item is END_SENTINEL or isinstance(item, StreamGap)


async def _result(gateway: Gateway, run: RunRecord) -> Any:
    if run.status == "error":
        return {"__error__": run.error}
    graph = gateway.graph_of_run(run)
    if graph is None:
        return {}
    config = {"configurable": {"thread_id": run.thread_id, "checkpoint_ns": ""}}
    async with graph.opened(gateway.replica, config) as compiled:
        last = await _last_checkpoint(gateway.replica, config, run.run_id)
        return {} if last is None else _values(await compiled.aget_state(last))


async def _last_checkpoint(replica: Replica, config: Any, run_id: str) -> Any:
    """The run's own last checkpoint: the thread may have gone on since."""
    found = [saved.config async for saved in replica.checkpointer.alist(config, filter={"run_id": run_id}, limit=1)]
    return found[0] if found else None


def _values(snapshot: Any) -> Any:
    if not snapshot.interrupts or not isinstance(snapshot.values, dict):
        return snapshot.values or {}
    return {**snapshot.values, "__interrupt__": [interrupt_answer(interrupt) for interrupt in snapshot.interrupts]}
