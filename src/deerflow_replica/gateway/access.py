"""Whose thread it is. A stranger's answer is that of a thread that does not exist."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..threads.values import Claim
from .problems import RUN_NOT_FOUND, THREAD_NOT_FOUND, conflict, not_found, unprocessable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..replica import Replica
    from ..runs.registry.records import OwnedRun, RunRecord, ThreadHead, ThreadRow
    from ..threads import ThreadRecord
    from .lookups import Lookups


def is_allowed(head: ThreadHead | OwnedRun | None, user_id: str | None, *, by_map: bool) -> bool:
    """Whether this user may use a thread, by the map's word and by its row, as far as it has one.

    Nobody, None, may use what exists and was never anybody's. The thread of a stateless run is not in the map: its
    row says whose it is.
    """
    if user_id is None:
        return by_map and head is not None and head.user_id is None
    if head is not None and head.hidden:
        return head.user_id == user_id
    return by_map


async def may_use(replica: Replica, thread_id: str, user_id: str | None) -> bool:
    """Whether the thread exists, and this user may use it."""
    by_map, head = await asyncio.gather(_by_map(replica, thread_id, user_id), replica.runs.get_thread_head(thread_id))
    return is_allowed(head, user_id, by_map=by_map)


async def require_thread(replica: Replica, thread_id: str, user_id: str | None) -> None:
    """404 unless the thread exists and this user may use it."""
    if not await may_use(replica, thread_id, user_id):
        raise not_found(THREAD_NOT_FOUND)


async def thread_of(replica: Replica, thread_id: str, user_id: str | None) -> ThreadRow:
    """The thread's row; 404 when it does not exist or is another's. A thread that was only claimed has an empty one."""
    await require_thread(replica, thread_id, user_id)
    row, record = await asyncio.gather(replica.runs.get_thread(thread_id), _record(replica, thread_id, user_id))
    shown = shown_row(row, record)
    if shown is None:
        raise not_found(THREAD_NOT_FOUND)
    return shown


async def require_run(lookups: Lookups, thread_id: str, run_id: str, user_id: str | None) -> RunRecord:
    """The run's record; 404 unless it is a run of that thread, which this user may use."""
    by_map, found = await asyncio.gather(lookups.by_map(thread_id, user_id), lookups.runs.get(run_id))
    if found is None or found.run.thread_id != thread_id or not is_allowed(found, user_id, by_map=by_map):
        raise not_found(RUN_NOT_FOUND)
    return found.run


async def open_thread(replica: Replica, thread_id: str, user_id: str | None, *, create: bool) -> bool:
    """Make sure that a run finds the thread's row; whether it is hidden. 404 for one that is not this user's; with
    `create` one that nobody has becomes theirs.
    """
    by_map, head = await asyncio.gather(_by_map(replica, thread_id, user_id), replica.runs.get_thread_head(thread_id))
    allowed = is_allowed(head, user_id, by_map=by_map)
    if allowed and head is not None:
        return head.hidden
    if not allowed and not (create and (await take_thread(replica, thread_id, user_id, {})).granted):
        raise not_found(THREAD_NOT_FOUND)
    await _new_row(replica, thread_id, user_id, {})
    return False


async def create_thread(
    replica: Replica, thread_id: str, user_id: str | None, metadata: Mapping[str, Any], *, existing_is_fine: bool
) -> ThreadRow:
    """A new thread of this user; 409 when the id is taken, also by somebody else."""
    claim = await take_thread(replica, thread_id, user_id, metadata)
    row = None
    if claim.granted:
        row = await _new_row(replica, thread_id, user_id, metadata)
        if row is not None and not claim.created:
            await mirror_thread(replica, thread_id)
        if row is None and existing_is_fine:
            row = await replica.runs.get_thread(thread_id)
    if row is None:
        raise conflict("Thread already exists")
    return shown_row(row, claim.record) or row


async def take_thread(replica: Replica, thread_id: str, user_id: str | None, metadata: Mapping[str, Any]) -> Claim:
    """Make a thread this user's, before anything of it exists. Refused: it is somebody else's, or everybody's."""
    by_map, head = await asyncio.gather(_by_map(replica, thread_id, user_id), replica.runs.get_thread_head(thread_id))
    if user_id is None:
        return Claim(thread_id, by_map and (head is None or head.user_id is None), False, None)
    if head is not None and (head.hidden or head.user_id != user_id):
        record = await replica.threads.get(thread_id, user_id=user_id) if not head.hidden else None
        return Claim(thread_id, is_allowed(head, user_id, by_map=by_map), False, record)
    claim = await _claimed(replica, thread_id, user_id, metadata)
    if claim.created and head is not None:  # what an expired thread of this user left behind
        await replica._manager.delete_thread(thread_id)
    return claim


async def tag_thread(replica: Replica, thread_id: str, user_id: str | None, metadata: Mapping[str, Any]) -> None:
    """Merge into a thread's metadata: first where it may be refused, so that nothing has changed then."""
    try:
        record = await replica.threads.update(thread_id, user_id=user_id, metadata=metadata) if user_id else None
    except ValueError as error:
        raise unprocessable(str(error)) from error
    row = await replica.runs.update_thread(thread_id, metadata=metadata)
    if row is None and record is not None:  # only claimed until now
        row = await _new_row(replica, thread_id, user_id, record.metadata)
    if row is None:
        raise not_found(THREAD_NOT_FOUND)
    await mirror_thread(replica, thread_id)


async def delete_thread(replica: Replica, thread_id: str, user_id: str | None) -> None:
    """Stop its runs and forget all of it. The map comes last: until then only its user can try again."""
    await replica._manager.delete_thread(thread_id)
    if user_id is not None:
        await replica.threads.delete(thread_id, user_id=user_id)
        await _forget_unclaimed(replica, thread_id, user_id)


def shown_row(row: ThreadRow | None, record: ThreadRecord | None) -> ThreadRow | None:
    """What a user sees of a thread: the map, where it has the thread, says when it changed and what it was tagged."""
    if row is None or record is None:
        return row if record is None else row_of(record)
    metadata = {**record.metadata, **row.metadata}
    return replace(row, created_at=record.created_at, updated_at=record.updated_at, metadata=metadata)


def row_of(record: ThreadRecord) -> ThreadRow:
    """A thread that is in the map and has never run."""
    from ..runs.registry.records import ThreadRow

    return ThreadRow(
        thread_id=record.thread_id,
        user_id=record.user_id,
        metadata=record.metadata,
        created_at=record.created_at,
        updated_at=record.updated_at,
        state_updated_at=record.updated_at,
    )


async def mirror_thread(replica: Replica, thread_id: str) -> None:
    """After a change of a thread's row that no run made."""
    if replica._manager.mirror is not None:
        await replica._manager.mirror.mirror(thread_id)


async def _record(replica: Replica, thread_id: str, user_id: str | None) -> ThreadRecord | None:
    return None if user_id is None else await replica.threads.get(thread_id, user_id=user_id)


async def _new_row(
    replica: Replica, thread_id: str, user_id: str | None, metadata: Mapping[str, Any]
) -> ThreadRow | None:
    """The row of a thread that is this user's; None: it has one. 404 if the thread was deleted meanwhile."""
    row = await replica.runs.create_thread(thread_id, user_id=user_id, metadata=metadata)
    if row is not None and user_id is not None and await _forget_unclaimed(replica, thread_id, user_id):
        raise not_found(THREAD_NOT_FOUND)
    return row


async def _forget_unclaimed(replica: Replica, thread_id: str, user_id: str) -> bool:
    """Delete what a request made of a thread while another one deleted it: whoever is the later one sees it.

    The row is looked for first: one that is made after that belongs to whoever claims the thread anew.
    """
    head = await replica.runs.get_thread_head(thread_id)
    by_map = await _by_map(replica, thread_id, user_id)
    if by_map or head is None:
        return not by_map
    await replica._manager.delete_thread(thread_id)
    return True


async def _by_map(replica: Replica, thread_id: str, user_id: str | None) -> bool:
    return await replica.threads.check_access(thread_id, user_id, require_existing=user_id is not None)


async def _claimed(replica: Replica, thread_id: str, user_id: str, metadata: Mapping[str, Any]) -> Claim:
    try:
        return await replica.threads.claim(thread_id, user_id, metadata=metadata)
    except ValueError as error:
        raise unprocessable(str(error)) from error
