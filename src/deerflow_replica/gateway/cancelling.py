"""Runs that are cancelled: many at once, or because the client that waited for one has left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import StoreUnavailableError
from .access import may_use

if TYPE_CHECKING:
    from ..replica import Replica
    from ..runs.registry.records import CancelAction, RunStatus

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2
_ATTEMPTS = 50


async def cancel_named(
    replica: Replica, thread_id: str, run_ids: Sequence[str], user_id: str | None, action: CancelAction
) -> int:
    """How many of these were cancelled; 0 for a thread that this user may not use."""
    if not await may_use(replica, thread_id, user_id):
        return 0
    records = [await replica.runs.get(run_id) for run_id in set(run_ids)]
    inside = sorted((run.created_at, run.run_id) for run in records if run is not None and run.thread_id == thread_id)
    return await _cancelled(replica, (run_id for _, run_id in reversed(inside)), action)


async def cancel_unfinished(
    replica: Replica, status: RunStatus | None, user_id: str | None, action: CancelAction
) -> int:
    """How many runs were cancelled, of those that are not over on the threads of this user."""
    runs = await replica.runs.unfinished(user_id=user_id, status=status)
    owners = await replica.threads.owners_of({run.thread_id for run in runs if not run.hidden})
    mine = (run.run_id for run in runs if run.hidden or owners.get(run.thread_id) == user_id)
    return await _cancelled(replica, mine, action)


def cancel_when_gone(replica: Replica, run_id: str) -> Callable[[], Awaitable[None]]:
    """What to do when the client of a run has left: cancel it, also if the database is away for a moment."""

    async def cancel() -> None:
        for _ in range(_ATTEMPTS):
            try:
                await replica.runs.cancel(run_id)
            except StoreUnavailableError as error:
                _log.warning("run %s: its client has left, and it cannot be cancelled yet: %s", run_id, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    return cancel


async def _cancelled(replica: Replica, run_ids: Iterable[str], action: CancelAction) -> int:
    """Newest first: a run that waits must not begin because the one before it was cancelled."""
    return sum([await replica.runs.cancel(run_id, action=action) for run_id in run_ids])
