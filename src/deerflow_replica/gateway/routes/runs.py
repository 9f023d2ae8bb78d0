"""Runs: begun in the background, looked at, waited for, cancelled, forgotten."""

from __future__ import annotations

from typing import get_args

from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.types import ASGIApp

from ...runs.registry.records import CancelAction, RunRecord, RunStatus
from ..answers import json_response, run_answer
from ..bodies import CancelRuns, CreateRun
from ..cancelling import cancel_named, cancel_unfinished, cancel_when_gone
from ..endpoint import Call, Endpoint
from ..problems import RUN_NOT_FOUND, not_found, unprocessable
from ..results import result_frames
from ..sse import StreamedResponse
from ..starting import begun, prepared


async def create(call: Call) -> ASGIApp:
    run = await begun(call, await prepared(call))
    return json_response(run_answer(run), headers={"location": _place(run), "content-location": _place(run)})


async def wait(call: Call) -> ASGIApp:
    run = await begun(call, await prepared(call))
    body: CreateRun = call.body
    return _result(call, run, cancel=body.on_disconnect == "cancel")


async def list_runs(call: Call) -> ASGIApp:
    limit, offset = _number(call, "limit", 10, 1, 1000), _number(call, "offset", 0, 0, 2**31)
    found = await call.replica.runs.list(call.thread_id, limit=limit, offset=offset, status=_status(call))
    return json_response([run_answer(run) for run in found])


async def get(call: Call) -> ASGIApp:
    return json_response(run_answer(call.named_run()))


async def join(call: Call) -> ASGIApp:
    return _result(call, call.named_run(), cancel=call.says("cancel_on_disconnect"))


async def cancel(call: Call) -> ASGIApp:
    """202 once the wish is stored; with `wait=1` the run's result, when it is over."""
    run = call.named_run()
    if not await call.replica.runs.cancel(run.run_id, action=_action(call)):
        raise not_found(RUN_NOT_FOUND)
    return _result(call, run) if call.says("wait") else Response(status_code=202)


async def cancel_many(call: Call) -> ASGIApp:
    """204 if any was cancelled: those of a list in one thread, or all with a status that this user may use."""
    body: CancelRuns = call.body
    action = _action(call)
    if body.thread_id is not None and body.run_ids is not None:
        cancelled = await cancel_named(call.replica, body.thread_id, body.run_ids, call.user_id, action)
    elif body.status is not None and body.thread_id is None and body.run_ids is None:
        status = None if body.status == "all" else body.status
        cancelled = await cancel_unfinished(call.replica, status, call.user_id, action)
    else:
        raise unprocessable("thread_id and run_ids, or status: one of the two is wanted")
    if not cancelled:
        raise not_found(RUN_NOT_FOUND)
    return Response(status_code=204)


async def delete(call: Call) -> ASGIApp:
    """One that is not over is stopped first."""
    if not await call.replica._manager.delete_run(call.named_run().run_id):
        raise not_found(RUN_NOT_FOUND)
    return Response(status_code=204)


def _result(call: Call, run: RunRecord, *, cancel: bool = False) -> ASGIApp:
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
        on_gone=cancel_when_gone(call.replica, run.run_id) if cancel else None,
    )
    return call.gateway.watched(response, run)


def _action(call: Call) -> CancelAction:
    match call.request.query_params.get("action"):
        case None | "" | "interrupt":
            return "interrupt"
        case "rollback":
            return "rollback"
        case other:
            raise unprocessable(f"action: interrupt or rollback, not {other!r}")


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
    Endpoint("POST", "/runs", create, body=_CREATE),
    Endpoint("POST", "/runs/wait", wait, body=_CREATE),
    Endpoint("POST", "/runs/cancel", cancel_many, body=TypeAdapter(CancelRuns)),
    Endpoint("POST", "/threads/{thread_id}/runs", create, body=_CREATE, opens_thread=True),
    Endpoint("POST", "/threads/{thread_id}/runs/wait", wait, body=_CREATE, opens_thread=True),
    Endpoint("GET", "/threads/{thread_id}/runs", list_runs),
    Endpoint("GET", "/threads/{thread_id}/runs/{run_id}", get),
    Endpoint("DELETE", "/threads/{thread_id}/runs/{run_id}", delete),
    Endpoint("GET", "/threads/{thread_id}/runs/{run_id}/join", join),
    Endpoint("POST", "/threads/{thread_id}/runs/{run_id}/cancel", cancel),
)
