"""The states of a thread: the last one, one by its checkpoint, those before it, and a new one made by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from starlette.responses import Response

from ..access import open_thread, thread_of
from ..answers import empty_state, state_answer, state_response
from ..bodies import validated
from ..endpoint import Call, Endpoint
from ..problems import CHECKPOINT_NOT_FOUND, bad_request, conflict, not_found
from ..state_bodies import SearchHistory, StateAtCheckpoint, UpdateState
from ..states import States, leave, left_by, opened_states


async def get_state(call: Call) -> Response:
    return await _state(call, {}, subgraphs=_subgraphs(call), select=_select(call))


async def get_state_at(call: Call) -> Response:
    body = validated(_UPDATE, {"checkpoint_id": call.request.path_params["checkpoint_id"]})
    return await _state(call, body.place(), subgraphs=_subgraphs(call), select=_select(call))


async def post_state_at(call: Call) -> Response:
    body: StateAtCheckpoint = call.body
    place = {} if body.checkpoint is None else body.checkpoint.place()
    return await _state(call, place, subgraphs=bool(body.subgraphs), select=body.select)


async def update_state(call: Call) -> Response:
    """The checkpoint that was made. 409 while a run may make some, 400 as long as no graph is known."""
    body: UpdateState = call.body
    await open_thread(call.replica, call.thread_id, call.user_id, create=False)
    row = await thread_of(call.replica, call.thread_id, call.user_id)
    if row.status == "busy":
        raise conflict("Thread is busy with a run")
    async with opened_states(call, row) as states:
        if states is None:
            raise bad_request("Thread has no graph that is served here: run one on it first")
        await _require_checkpoint(states, body.place())
        made = await states.update(body.place(), body.values, body.as_node)
        head = await states.at({})
    if head is not None:
        await leave(call.replica, row.thread_id, left_by(head, row.thread_id))
    return state_response(_made(made), None)


async def get_history(call: Call) -> Response:
    query = call.request.query_params
    given: dict[str, Any] = {name: query[name] for name in ("limit", "before") if name in query}
    if _NUMBER.fullmatch(given.get("limit", "")):
        given["limit"] = int(given["limit"])
    return await _history(call, validated(_HISTORY, {**given, "select": _select(call)}))


async def post_history(call: Call) -> Response:
    return await _history(call, call.body)


async def _state(call: Call, place: Mapping[str, Any], *, subgraphs: bool, select: Sequence[str] | None) -> Response:
    """A thread that has never run has an empty state; a checkpoint that was named and is not there is 404."""
    row = await thread_of(call.replica, call.thread_id, call.user_id)
    async with opened_states(call, row) as states:
        snapshot = None if states is None else await states.at(place, subgraphs=subgraphs)
    if snapshot is not None:
        return state_response(state_answer(snapshot), select)
    if place.get("checkpoint_id"):
        raise not_found(CHECKPOINT_NOT_FOUND)
    return state_response(empty_state(row.thread_id, place.get("checkpoint_ns", "")), select)


async def _history(call: Call, body: SearchHistory) -> Response:
    row = await thread_of(call.replica, call.thread_id, call.user_id)
    async with opened_states(call, row) as states:
        if states is None:
            return state_response([], None)
        found = await states.history(
            body.place(), limit=body.limit, before=body.before_id(), metadata=body.metadata or None
        )
    return state_response([state_answer(snapshot) for snapshot in found], body.select)


async def _require_checkpoint(states: States, place: Mapping[str, Any]) -> None:
    if place.get("checkpoint_id") and await states.at(place) is None:
        raise not_found(CHECKPOINT_NOT_FOUND)


def _made(configurable: Mapping[str, Any]) -> dict[str, Any]:
    names = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
    checkpoint = {name: configurable[name] for name in names if name in configurable}
    return {
        "checkpoint": checkpoint,
        "configurable": checkpoint,
        "checkpoint_id": checkpoint.get("checkpoint_id"),
    }


def _subgraphs(call: Call) -> bool:
    return call.request.query_params.get("subgraphs", "").lower() in ("true", "1")


def _select(call: Call) -> list[str] | None:
    return call.request.query_params.getlist("select") or None


_NUMBER = re.compile(r"[0-9]{1,9}")
_AT: TypeAdapter[StateAtCheckpoint] = TypeAdapter(StateAtCheckpoint)
_UPDATE: TypeAdapter[UpdateState] = TypeAdapter(UpdateState)
_HISTORY: TypeAdapter[SearchHistory] = TypeAdapter(SearchHistory)

ENDPOINTS = (
    Endpoint("GET", "/threads/{thread_id}/state", get_state),
    Endpoint("POST", "/threads/{thread_id}/state", update_state, body=_UPDATE),
    Endpoint("POST", "/threads/{thread_id}/state/checkpoint", post_state_at, body=_AT),
    Endpoint("GET", "/threads/{thread_id}/state/{checkpoint_id}", get_state_at),
    Endpoint("GET", "/threads/{thread_id}/history", get_history),
    Endpoint("POST", "/threads/{thread_id}/history", post_history, body=_HISTORY),
)
