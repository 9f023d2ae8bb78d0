"""Whether this replica is there, which it is, and what it did."""

from __future__ import annotations

import os
from importlib.metadata import version

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ... import __version__
from ...errors import MissingExtraError
from ..answers import json_response
from ..endpoint import Call, Endpoint


async def alive(call: Call) -> Response:
    return json_response({"ok": True})


async def ready(call: Call) -> Response:
    """503 while draining, and while a part of the replica cannot be reached."""
    if call.gateway.draining:
        return json_response({"ok": False, "detail": "draining"}, 503)
    down = [result.name for result in await call.replica.check() if not result.ok]
    if down:
        return json_response({"ok": False, "detail": f"not reachable: {', '.join(down)}"}, 503)
    return json_response({"ok": True})


async def info(call: Call) -> Response:
    return json_response(
        {
            "version": __version__,
            "langgraph_py_version": version("langgraph"),
            "flags": {"assistants": True, "crons": False, "langsmith": False},
            "replica_id": call.gateway.replica_id,
            "pid": os.getpid(),
        }
    )


async def metrics(call: Call) -> Response:
    """For Prometheus; 501 without the extra."""
    try:
        from ..metrics import exposition
    except MissingExtraError as error:
        raise HTTPException(501, str(error)) from None
    page, content_type = exposition(call.gateway, call.request.headers.get("accept", ""))
    return Response(page, headers={"content-type": content_type})


ENDPOINTS = (
    Endpoint("GET", "/ok", alive, public=True),
    Endpoint("GET", "/live", alive, public=True),
    Endpoint("GET", "/ready", ready, public=True),
    Endpoint("GET", "/info", info, public=True),
    Endpoint("GET", "/metrics", metrics, public=True),
)
