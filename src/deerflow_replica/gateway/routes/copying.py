"""A thread with all its checkpoints once more, as a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

from starlette.responses import Response

from ...errors import ReplicaError
from ...runs.checkpoints import copy_thread
from ...runs.registry.records import RunOutcome, ThreadRow
from ..access import create_thread, delete_thread, thread_of
from ..answers import json_response, thread_answer
from ..endpoint import Call, Endpoint
from ..ids import new_thread_id
from ..states import leave, left_by, opened_states

_log = logging.getLogger(__name__)

_DELETION_SECONDS = 2.0  # how long one takes between the states of a thread and its row, at most
_LOOK_AGAIN_SECONDS = 0.05


async def copy(call: Call) -> Response:
    """The new thread, the caller's own. Nobody knows it before its checkpoints are there; nothing stays of a copy that
    does not succeed, as when the thread is deleted meanwhile.
    """
    before = await thread_of(call.replica, call.thread_id, call.user_id)
    new_id = new_thread_id()
    try:
        await copy_thread(call.replica.checkpointer, before.thread_id, new_id)
        source, outcome = await _copied(call, before, new_id)
        await create_thread(call.replica, new_id, call.user_id, source.metadata, existing_is_fine=False)
        await leave(call.replica, new_id, outcome)
        return json_response(thread_answer(await thread_of(call.replica, new_id, call.user_id)))
    except BaseException:
        await _forget(call, new_id)
        raise


async def _copied(call: Call, before: ThreadRow, new_id: str) -> tuple[ThreadRow, RunOutcome]:
    """The thread as it is after its states were copied, and what its copy's row keeps of these. 404 when it is gone."""
    async with opened_states(call, replace(before, thread_id=new_id)) as states:
        head = None if states is None else await states.at({})
    if states is None or head is not None:
        after = await thread_of(call.replica, before.thread_id, call.user_id)
    else:
        after = await _settled(call, before)
    if states is None:  # its graph is not served here, and nothing can be told of its states
        return after, _as_left(after)
    left = RunOutcome("success", "idle") if head is None else left_by(head, before.thread_id)
    return after, _outcome(before, after, left)


async def _settled(call: Call, row: ThreadRow) -> ThreadRow:
    """The row of a thread without states. One that shows values all the same is about to lose them, or to be gone."""
    deadline = time.monotonic() + _DELETION_SECONDS
    while True:
        after = await thread_of(call.replica, row.thread_id, call.user_id)
        if not after.values or time.monotonic() > deadline:
            return after
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _outcome(before: ThreadRow, after: ThreadRow, left: RunOutcome) -> RunOutcome:
    """`left` is what the copied states say. How their last run ended says the row, if it is that of these states."""
    is_of_them = before.state_updated_at == after.state_updated_at and after.interrupts.keys() <= left.interrupts.keys()
    return replace(_as_left(after), values=left.values) if is_of_them and after.status != "busy" else left


def _as_left(row: ThreadRow) -> RunOutcome:
    if row.status == "busy":
        return RunOutcome("success", "idle", values=row.values)
    return RunOutcome("success", row.status, row.error, row.values, row.interrupts)


async def _forget(call: Call, new_id: str) -> None:
    try:
        await delete_thread(call.replica, new_id, call.user_id)
    except ReplicaError as error:
        _log.warning("thread %s: a copy that did not succeed is not deleted: %s", new_id, error)


ENDPOINTS = (Endpoint("POST", "/threads/{thread_id}/copy", copy),)
