"""Assistants: one for each graph that this app serves."""

from __future__ import annotations

from pydantic import TypeAdapter
from starlette.responses import Response

from ..answers import assistant_answer, json_response
from ..bodies import SearchAssistants
from ..endpoint import Call, Endpoint
from ..problems import not_found


async def search(call: Call) -> Response:
    body: SearchAssistants = call.body
    known = [graph.name for graph in call.gateway.graphs.values() if body.graph_id in (None, graph.name)]
    answers = [assistant_answer(name, call.gateway.since) for name in known]
    wanted = (body.metadata or {}).items()
    answers = [answer for answer in answers if wanted <= answer["metadata"].items()]
    return json_response(answers[body.offset : body.offset + body.limit])


async def get(call: Call) -> Response:
    graph = call.gateway.graph_of(call.request.path_params["assistant_id"])
    if graph is None:
        raise not_found("Assistant not found")
    return json_response(assistant_answer(graph.name, call.gateway.since))


ENDPOINTS = (
    Endpoint("POST", "/assistants/search", search, body=TypeAdapter(SearchAssistants)),
    Endpoint("GET", "/assistants/{assistant_id}", get),
)
