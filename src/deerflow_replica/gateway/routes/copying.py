"""A thread with all its checkpoints once more, as a thread of its own."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import Response

from ...runs.checkpoints import copy_thread
from ...runs.registry.records import RunOutcome, ThreadRow
from ..access import create_thread, thread_of
from ..answers import json_response, thread_answer
from ..endpoint import Call, Endpoint
from ..ids import new_thread_id
from ..states import leave, left_by, opened_states


async def copy(call: Call) -> Response:
    """The new thread, the caller's own. Nobody knows it before its checkpoints are there."""
    row = await thread_of(call.replica, call.thread_id, call.user_id)
    new_id = new_thread_id()
    await copy_thread(call.replica.checkpointer, row.thread_id, new_id)
    made = await create_thread(call.replica, new_id, call.user_id, row.metadata, existing_is_fine=False)
    await leave(call.replica, made.thread_id, await _outcome(call, replace(row, thread_id=new_id)))
    return json_response(thread_answer(await thread_of(call.replica, new_id, call.user_id)))


async def _outcome(call: Call, row: ThreadRow) -> RunOutcome:
    """Of a thread that is busy, the state as it was copied."""
    if row.status != "busy":
        return RunOutcome("success", row.status, row.error, row.values, row.interrupts)
    async with opened_states(call, row) as states:
        head = None if states is None else await states.at({})
    return RunOutcome("success", "idle") if head is None else left_by(head, row.thread_id)


ENDPOINTS = (Endpoint("POST", "/threads/{thread_id}/copy", copy),)
