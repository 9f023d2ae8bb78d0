"""The state of a thread, read through its graph."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ...runs.registry.records import ThreadRow
from ..access import thread_of
from ..answers import empty_state, json_response, state_answer
from ..endpoint import Call, Endpoint


async def get_state(call: Call) -> Response:
    row = await thread_of(call.replica, call.thread_id, call.user_id)
    subgraphs = call.request.query_params.get("subgraphs", "").lower() in ("true", "1")
    return json_response(await _state(call, row, subgraphs))


async def _state(call: Call, row: ThreadRow, subgraphs: bool) -> dict[str, Any]:
    """Empty for a thread whose graph is not known yet."""
    graph = call.gateway.graph_of(str(row.metadata.get("graph_id")))
    if graph is None:
        return empty_state(row.thread_id)
    config: Any = {"configurable": {"thread_id": row.thread_id}}
    async with graph.opened(call.replica, config) as compiled:
        snapshot = await compiled.aget_state(config, subgraphs=subgraphs)
    return state_answer(snapshot) if snapshot.created_at else empty_state(row.thread_id)


ENDPOINTS = (Endpoint("GET", "/threads/{thread_id}/state", get_state),)
