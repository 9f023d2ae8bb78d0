"""Whose thread it is. A stranger's answer is that of a thread that does not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .problems import RUN_NOT_FOUND, THREAD_NOT_FOUND, conflict, not_found, unprocessable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..replica import Replica
    from ..runs.registry.records import RunRecord, ThreadRow
    from ..threads import ThreadRecord


async def may_use(replica: Replica, thread_id: str, user_id: str | None) -> bool:
    """Whether this user may use the thread, if it exists. Nobody may use an owned one: None is no bypass."""
    return await replica.threads.check_access(thread_id, user_id, require_existing=user_id is not None)


async def thread_of(replica: Replica, thread_id: str, user_id: str | None) -> ThreadRow:
    """The thread's row; 404 when it does not exist or is another's. A thread that was only claimed has an empty one."""
    if user_id is None:
        allowed = await may_use(replica, thread_id, None)
        row = await replica.runs.get_thread(thread_id) if allowed else None
    else:
        record = await replica.threads.get(thread_id, user_id=user_id)
        row = None if record is None else await replica.runs.get_thread(thread_id) or row_of(record)
    if row is None:
        raise not_found(THREAD_NOT_FOUND)
    return row


async def require_thread(replica: Replica, thread_id: str, user_id: str | None) -> None:
    """404 unless the thread exists and this user may use it."""
    if user_id is None:
        await thread_of(replica, thread_id, None)
    elif not await may_use(replica, thread_id, user_id):
        raise not_found(THREAD_NOT_FOUND)


async def require_run(replica: Replica, thread_id: str, run_id: str, user_id: str | None) -> RunRecord:
    """The run's record; 404 unless it is a run of that thread, which this user may use."""
    allowed = await may_use(replica, thread_id, user_id)
    run = await replica.runs.get(run_id) if allowed else None
    if run is None or run.thread_id != thread_id:
        raise not_found(RUN_NOT_FOUND)
    return run


async def take_thread(replica: Replica, thread_id: str, user_id: str | None, metadata: Mapping[str, Any]) -> bool:
    """Make a thread this user's, before anything of it exists. False: it is somebody else's."""
    if user_id is None:
        return await may_use(replica, thread_id, None)
    try:
        claim = await replica.threads.claim(thread_id, user_id, metadata=metadata)
    except ValueError as error:
        raise unprocessable(str(error)) from error
    return claim.granted


async def create_thread(
    replica: Replica, thread_id: str, user_id: str | None, metadata: Mapping[str, Any], *, existing_is_fine: bool
) -> ThreadRow:
    """A new thread of this user; 409 when the id is taken, also by somebody else."""
    if await take_thread(replica, thread_id, user_id, metadata):
        row = await replica.runs.create_thread(thread_id, user_id=user_id, metadata=metadata)
        if row is None and existing_is_fine:
            row = await replica.runs.get_thread(thread_id)
        if row is not None:
            return row
    raise conflict("Thread already exists")


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
