"""Runs: begun in the background, looked at, waited for, cancelled."""

from __future__ import annotations

from typing import get_args

from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.types import ASGIApp

from ...runs.registry.records import RunRecord, RunStatus
from ..answers import json_response, run_answer
from ..bodies import CreateRun
from ..endpoint import Call, Endpoint
from ..ids import new_run_id
from ..problems import RUN_NOT_FOUND, not_found, unprocessable
from ..results import result_frames
from ..sse import StreamedResponse
from ..starting import prepared


async def create(call: Call) -> ASGIApp:
    run = await _started(call)
    return json_response(run_answer(run), headers={"content-location": _place(run)})


async def wait(call: Call) -> ASGIApp:
    return _result(call, await _started(call))


async def list_runs(call: Call) -> ASGIApp:
    limit, offset = _number(call, "limit", 10, 1, 1000), _number(call, "offset", 0, 0, 2**31)
    found = await call.replica.runs.list(call.thread_id, limit=limit, offset=offset, status=_status(call))
    return json_response([run_answer(run) for run in found])


async def get(call: Call) -> ASGIApp:
    return json_response(run_answer(call.named_run()))


async def join(call: Call) -> ASGIApp:
    return _result(call, call.named_run())


async def cancel(call: Call) -> ASGIApp:
    """202 once the wish is stored; with `wait=1` the run's result, when it is over."""
    run = call.named_run()
    action = call.request.query_params.get("action") or "interrupt"
    if action != "interrupt":
        raise unprocessable(f"action: {action!r} is not available")
    if not await call.replica.runs.cancel(run.run_id):
        raise not_found(RUN_NOT_FOUND)
    if call.request.query_params.get("wait", "").lower() in ("1", "true"):
        return _result(call, run)
    return Response(status_code=202)


async def _started(call: Call) -> RunRecord:
    call.gateway.refuse_while_draining()
    return await call.gateway.start(await prepared(call, new_run_id()))


def _result(call: Call, run: RunRecord) -> ASGIApp:
    settings = call.gateway.config.gateway
    response = StreamedResponse(
        result_frames(call.gateway, run),
        headers={
            "content-type": "application/json",
            "location": f"{_place(run)}/join",
            "content-location": _place(run),
        },
        heartbeat=b"\n",
        heartbeat_seconds=settings.heartbeat_interval_seconds,
        send_timeout_seconds=settings.send_timeout_seconds,
    )
    return call.gateway.watched(response, run)


def _status(call: Call) -> RunStatus | None:
    given = call.request.query_params.get("status")
    if given and given not in get_args(RunStatus):
        raise unprocessable(f"status: one of {', '.join(get_args(RunStatus))}")
    return next((status for status in get_args(RunStatus) if status == given), None)


def _place(run: RunRecord) -> str:
    return f"/threads/{run.thread_id}/runs/{run.run_id}"


def _number(call: Call, name: str, default: int, least: int, most: int) -> int:
    text = call.request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise unprocessable(f"{name}: a whole number of {least} to {most}")
    return int(text)


_CREATE = TypeAdapter(CreateRun)

ENDPOINTS = (
    Endpoint("POST", "/threads/{thread_id}/runs", create, body=_CREATE, opens_thread=True),
    Endpoint("POST", "/threads/{thread_id}/runs/wait", wait, body=_CREATE, opens_thread=True),
    Endpoint("GET", "/threads/{thread_id}/runs", list_runs),
    Endpoint("GET", "/threads/{thread_id}/runs/{run_id}", get),
    Endpoint("GET", "/threads/{thread_id}/runs/{run_id}/join", join),
    Endpoint("POST", "/threads/{thread_id}/runs/{run_id}/cancel", cancel),
)
