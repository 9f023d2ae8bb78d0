"""Threads: made, found, changed and deleted by those whose they are."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter
from starlette.responses import Response

from ..access import create_thread, delete_thread, may_use, tag_thread, thread_of
from ..answers import json_response, thread_answer
from ..bodies import CountThreads, CreateThread, PruneThreads, SearchThreads, UpdateThread
from ..endpoint import Call, Endpoint
from ..ids import new_thread_id
from ..problems import unprocessable
from ..searching import Cut, Filter, count_threads, found_threads


async def create(call: Call) -> Response:
    body: CreateThread = call.body
    row = await create_thread(
        call.replica,
        body.thread_id or new_thread_id(),
        call.user_id,
        body.metadata or {},
        existing_is_fine=body.if_exists == "do_nothing",
    )
    return json_response(thread_answer(row))


async def get(call: Call) -> Response:
    return json_response(thread_answer(await thread_of(call.replica, call.thread_id, call.user_id)))


async def update(call: Call) -> Response:
    """The given keys are merged into the metadata. With `Prefer: return=minimal` nothing comes back."""
    body: UpdateThread = call.body
    await tag_thread(call.replica, call.thread_id, call.user_id, body.metadata or {})
    if "return=minimal" in call.request.headers.get("prefer", ""):
        return Response(status_code=204)
    return await get(call)


async def delete(call: Call) -> Response:
    """Its runs are stopped first, and their streams close."""
    await delete_thread(call.replica, call.thread_id, call.user_id)
    return Response(status_code=204)


async def prune(call: Call) -> Response:
    """How many of these threads were deleted: those that are the caller's."""
    body: PruneThreads = call.body
    if body.strategy == "keep_latest":
        raise unprocessable("strategy: keep_latest is not available, delete is")
    pruned = [await _pruned(call, thread_id) for thread_id in dict.fromkeys(body.thread_ids)]
    return json_response({"pruned_count": sum(pruned)})


async def _pruned(call: Call, thread_id: str) -> bool:
    if not await may_use(call.replica, thread_id, call.user_id):
        return False
    await delete_thread(call.replica, thread_id, call.user_id)
    return True


async def search(call: Call) -> Response:
    body: SearchThreads = call.body
    cut = Cut(body.sort_by or "created_at", body.sort_order or "desc", body.limit, body.offset)
    rows, total = await found_threads(call.replica, call.user_id, _wanted(body), cut)
    answers = [thread_answer(row, body.select) for row in rows]
    return json_response(answers, headers=_pagination(body.offset + len(rows), total, rows))


async def count(call: Call) -> Response:
    return json_response(await count_threads(call.replica, call.user_id, _wanted(call.body)))


def _wanted(body: CountThreads) -> Filter:
    ids = None if body.ids is None else tuple(body.ids)
    return Filter(ids, body.status, body.metadata or {}, body.values or {})


def _pagination(end: int, total: int, rows: Sequence[object]) -> dict[str, str]:
    headers = {"x-pagination-total": str(total)}
    if rows and end < total:
        headers["x-pagination-next"] = str(end)
    return headers


ENDPOINTS = (
    Endpoint("POST", "/threads", create, body=TypeAdapter(CreateThread)),
    Endpoint("POST", "/threads/search", search, body=TypeAdapter(SearchThreads)),
    Endpoint("POST", "/threads/count", count, body=TypeAdapter(CountThreads)),
    Endpoint("POST", "/threads/prune", prune, body=TypeAdapter(PruneThreads)),
    Endpoint("GET", "/threads/{thread_id}", get),
    Endpoint("PATCH", "/threads/{thread_id}", update, body=TypeAdapter(UpdateThread)),
    Endpoint("DELETE", "/threads/{thread_id}", delete),
)
