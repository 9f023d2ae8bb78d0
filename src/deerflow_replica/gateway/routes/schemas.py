"""What is inside an assistant's graph: its drawing, its schemas, its subgraphs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.responses import Response

from ...runs.registry.assistants import AssistantRow
from ..answers import json_response
from ..assistants import require_assistant, with_defaults
from ..bodies import CreateRun
from ..endpoint import Call, Endpoint
from ..graphs import Graph
from ..problems import not_found, unprocessable
from ..schemas import schemas_of
from ..starting import run_config


async def graph(call: Call) -> Response:
    """With `xray` also the insides of subgraphs; a number says how deep."""
    xray = _xray(call)
    async with _opened(call, await _assistant(call)) as opened:
        drawing = await opened.aget_graph(xray=xray)
    return json_response(drawing.to_json())


async def schemas(call: Call) -> Response:
    row = await _assistant(call)
    async with _opened(call, row) as opened:
        return json_response(schemas_of(opened, row.graph_id))


async def subgraphs(call: Call) -> Response:
    """The schemas of the graph's subgraphs, by namespace."""
    row = await _assistant(call)
    namespace = call.request.path_params.get("namespace")
    recurse = call.request.query_params.get("recurse", "").lower() in ("1", "true")
    async with _opened(call, row) as opened:
        found = [pair async for pair in opened.aget_subgraphs(namespace=namespace, recurse=recurse)]
        return json_response({name: schemas_of(inner, row.graph_id) for name, inner in found})


async def _assistant(call: Call) -> AssistantRow:
    return await require_assistant(call.gateway, str(call.request.path_params["assistant_id"]), call.user_id)


@asynccontextmanager
async def _opened(call: Call, row: AssistantRow) -> AsyncIterator[Graph]:
    """Its graph as a run of it would get it, but for the thread."""
    served = call.gateway.graphs.get(row.graph_id)
    if served is None:
        raise not_found(f"There is no graph {row.graph_id!r} here")
    body = with_defaults(CreateRun(assistant_id=row.assistant_id), row)
    identity = {"graph_id": row.graph_id, "assistant_id": row.assistant_id}
    user = {} if call.user_id is None else {"user_id": call.user_id, "langgraph_auth_user_id": call.user_id}
    config: Any = run_config(body, {**identity, **user})
    async with served.opened(call.replica, config) as opened:
        yield opened


def _xray(call: Call) -> int | bool:
    given = call.request.query_params.get("xray", "false").lower()
    if given in ("true", "false"):
        return given == "true"
    if not (given.isascii() and given.isdigit() and len(given) < 4):
        raise unprocessable("xray: true, false, or a depth")
    return int(given)


_PLACE = "/assistants/{assistant_id}"

ENDPOINTS = (
    Endpoint("GET", f"{_PLACE}/graph", graph),
    Endpoint("GET", f"{_PLACE}/schemas", schemas),
    Endpoint("GET", f"{_PLACE}/subgraphs", subgraphs),
    Endpoint("GET", f"{_PLACE}/subgraphs/{{namespace}}", subgraphs),
)
