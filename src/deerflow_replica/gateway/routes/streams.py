"""Runs as they happen: created and streamed, or joined."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import TypeAdapter
from starlette.types import ASGIApp

from ...runs.registry.records import RunRecord
from ...stream import parse_last_event_id
from ..bodies import CreateRun
from ..cancelling import cancel_when_gone
from ..endpoint import Call, Endpoint
from ..filters import asked_modes, event_filter, query_of
from ..frames import RunReader, created_frames, joined_frames
from ..sse import EVENT_STREAM, Frames, StreamedResponse
from ..starting import begun, prepared


async def create_and_stream(call: Call) -> ASGIApp:
    """Subscribed before the run begins, so that its first event is not missed."""
    request = await prepared(call)
    run_id = str(request.run_id)
    reader = RunReader(call.replica.bridge, run_id)
    await reader.begin()
    try:
        run = await begun(call, request)
    except BaseException:
        await reader.aclose()
        raise
    frames = created_frames(call.gateway, run_id, reader)
    body: CreateRun = call.body
    return _stream(call, run, frames, cancel=body.on_disconnect == "cancel")


async def join(call: Call) -> ASGIApp:
    run = call.named_run()
    query = call.request.query_params
    modes = asked_modes(query.getlist("stream_mode"))
    cursor = parse_last_event_id(call.request.scope["headers"])
    frames = joined_frames(call.gateway, run, cursor, event_filter(modes))
    return _stream(call, run, frames, modes=modes, cancel=call.says("cancel_on_disconnect"))


def _stream(
    call: Call,
    run: RunRecord,
    frames: Frames,
    *,
    modes: Collection[str] = (),
    cancel: bool = False,
) -> ASGIApp:
    settings = call.gateway.config.gateway
    place = f"/threads/{run.thread_id}/runs/{run.run_id}"
    response = StreamedResponse(
        frames,
        headers={**EVENT_STREAM, "location": f"{place}/stream{query_of(modes)}", "content-location": place},
        heartbeat_seconds=settings.heartbeat_interval_seconds,
        send_timeout_seconds=settings.send_timeout_seconds,
        on_gone=cancel_when_gone(call.replica, run.run_id) if cancel else None,
    )
    return call.gateway.watched(response, run)


_CREATE = TypeAdapter(CreateRun)

ENDPOINTS = (
    Endpoint("POST", "/runs/stream", create_and_stream, body=_CREATE),
    Endpoint("POST", "/threads/{thread_id}/runs/stream", create_and_stream, body=_CREATE, opens_thread=True),
    Endpoint("GET", "/threads/{thread_id}/runs/{run_id}/stream", join),
)
