"""Threads: made, found, and shown to those whose they are."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter
from starlette.responses import Response

from ..access import create_thread, thread_of
from ..answers import json_response, thread_answer
from ..bodies import CountThreads, CreateThread, SearchThreads
from ..endpoint import Call, Endpoint
from ..ids import new_thread_id
from ..searching import Filter, Search, search_of


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


async def search(call: Call) -> Response:
    body: SearchThreads = call.body
    threads = await _search(call, body)
    total = await threads.count()
    rows = await threads.page(
        sort_by=body.sort_by or "created_at",
        sort_order=body.sort_order or "desc",
        limit=body.limit,
        offset=body.offset,
    )
    answers = [thread_answer(row, body.select) for row in rows]
    return json_response(answers, headers=_pagination(body.offset + len(rows), total, rows))


async def count(call: Call) -> Response:
    return json_response(await (await _search(call, call.body)).count())


async def _search(call: Call, body: CountThreads) -> Search:
    ids = None if body.ids is None else tuple(body.ids)
    return await search_of(call.replica, call.user_id, Filter(ids, body.status, body.metadata or {}))


def _pagination(end: int, total: int, rows: Sequence[object]) -> dict[str, str]:
    headers = {"x-pagination-total": str(total)}
    if rows and end < total:
        headers["x-pagination-next"] = str(end)
    return headers


ENDPOINTS = (
    Endpoint("POST", "/threads", create, body=TypeAdapter(CreateThread)),
    Endpoint("POST", "/threads/search", search, body=TypeAdapter(SearchThreads)),
    Endpoint("POST", "/threads/count", count, body=TypeAdapter(CountThreads)),
    Endpoint("GET", "/threads/{thread_id}", get),
)
