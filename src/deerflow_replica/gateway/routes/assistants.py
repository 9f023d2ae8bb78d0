"""Assistants: one for each graph that this app serves, and those that its users make of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter
from starlette.responses import Response

from ...runs.registry.assistants import AssistantChanges, AssistantFilter, NewAssistant
from ..access import delete_thread
from ..answers import assistant_answer, json_response
from ..assistant_bodies import CountAssistants, CreateAssistant, SearchAssistants, UpdateAssistant
from ..assistants import (
    assistant_of,
    count_assistants,
    found_assistants,
    named_system_assistant,
    require_assistant,
    require_created,
)
from ..bodies import ConfigBody
from ..endpoint import Call, Endpoint
from ..problems import ASSISTANT_NOT_FOUND, conflict, not_found, unprocessable
from ..searching import Cut, Filter, found_threads

_OLDEST = Cut("created_at", "asc", limit=100, offset=0)


async def create(call: Call) -> Response:
    """409 when the id is taken, by whomever; `if_exists: do_nothing` answers with the user's own."""
    body: CreateAssistant = call.body
    _require_graph(call, body.graph_id)
    assistant_id = body.assistant_id or str(uuid4())
    row = None
    if named_system_assistant(call.gateway, assistant_id) is None:
        row = await call.replica.runs.assistants.create(_new(body, assistant_id, call.user_id))
    if row is None and body.if_exists == "do_nothing":
        row = await assistant_of(call.gateway, assistant_id, call.user_id)
    if row is None:
        raise conflict("Assistant already exists")
    return json_response(assistant_answer(row))


async def get(call: Call) -> Response:
    return json_response(assistant_answer(await require_assistant(call.gateway, _named(call), call.user_id)))


async def update(call: Call) -> Response:
    body: UpdateAssistant = call.body
    _require_graph(call, body.graph_id)
    row = await require_created(call.gateway, _named(call), call.user_id)
    changes = AssistantChanges(
        graph_id=body.graph_id,
        name=body.name,
        description=body.description,
        config=None if body.config is None else _config(body.config),
        context=body.context,
        metadata=body.metadata,
    )
    changed = await call.replica.runs.assistants.update(row.assistant_id, changes, user_id=call.user_id)
    if changed is None:
        raise not_found(ASSISTANT_NOT_FOUND)
    return json_response(assistant_answer(changed))


async def delete(call: Call) -> Response:
    """With `delete_threads` also the user's threads whose last run was this assistant's; those first, so that what
    fails can be asked for again.
    """
    row = await require_created(call.gateway, _named(call), call.user_id)
    if call.request.query_params.get("delete_threads", "").lower() in ("1", "true"):
        await _delete_threads(call, row.assistant_id)
    if not await call.replica.runs.assistants.delete(row.assistant_id, user_id=call.user_id):
        raise not_found(ASSISTANT_NOT_FOUND)
    return Response(status_code=204)


async def search(call: Call) -> Response:
    body: SearchAssistants = call.body
    order = body.sort_by or "created_at", body.sort_order or "desc"
    rows = await found_assistants(call.gateway, _wanted(call, body), *order, body.limit + 1, body.offset)
    answers = [assistant_answer(row, body.select) for row in rows[: body.limit]]
    has_more = len(rows) > body.limit
    return json_response(answers, headers={"x-pagination-next": str(body.offset + body.limit)} if has_more else None)


async def count(call: Call) -> Response:
    return json_response(await count_assistants(call.gateway, _wanted(call, call.body)))


async def _delete_threads(call: Call, assistant_id: str) -> None:
    wanted = Filter(None, None, {"assistant_id": assistant_id}, {})
    page, _ = await found_threads(call.replica, call.user_id, wanted, _OLDEST)
    while page:
        for thread in page:
            await delete_thread(call.replica, thread.thread_id, call.user_id)
        page, _ = await found_threads(call.replica, call.user_id, wanted, _OLDEST)


def _named(call: Call) -> str:
    return str(call.request.path_params["assistant_id"])


def _require_graph(call: Call, graph_id: str | None) -> None:
    if graph_id is not None and graph_id not in call.gateway.graphs:
        raise unprocessable(f"graph_id: there is no graph {graph_id!r}")


def _new(body: CreateAssistant, assistant_id: str, user_id: str | None) -> NewAssistant:
    return NewAssistant(
        assistant_id=assistant_id,
        graph_id=body.graph_id,
        user_id=user_id,
        name=body.name or "Untitled",
        description=body.description,
        config=_config(body.config),
        context=body.context or {},
        metadata=body.metadata or {},
    )


def _config(given: ConfigBody | None) -> Mapping[str, Any]:
    return {} if given is None else given.model_dump(exclude_unset=True)


def _wanted(call: Call, body: CountAssistants) -> AssistantFilter:
    return AssistantFilter(user_id=call.user_id, graph_id=body.graph_id, name=body.name, metadata=body.metadata or {})


ENDPOINTS = (
    Endpoint("POST", "/assistants", create, body=TypeAdapter(CreateAssistant)),
    Endpoint("POST", "/assistants/search", search, body=TypeAdapter(SearchAssistants)),
    Endpoint("POST", "/assistants/count", count, body=TypeAdapter(CountAssistants)),
    Endpoint("GET", "/assistants/{assistant_id}", get),
    Endpoint("PATCH", "/assistants/{assistant_id}", update, body=TypeAdapter(UpdateAssistant)),
    Endpoint("DELETE", "/assistants/{assistant_id}", delete),
)
