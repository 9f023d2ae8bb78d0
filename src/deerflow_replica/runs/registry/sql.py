"""The registry on a database, written once: each operation is a generator that yields named statements.

The backends differ in their SQL files and in how they run such a generator inside one transaction.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from . import steps
from .base import RunRegistry
from .records import (
    Admission,
    CancelAction,
    Cancelled,
    Ended,
    Lease,
    NewRun,
    OwnedRun,
    RunOutcome,
    RunRecord,
    RunStatus,
    ThreadHead,
    ThreadRow,
    ThreadStatus,
    Unclosed,
    Unfinished,
)
from .rows import Row, Steps, T, head, match, new_thread, owned, record, thread

THREADS = "deerflow_replica_threads"
RUNS = "deerflow_replica_runs"


class SqlRunRegistry(RunRegistry):
    """What the databases share. A backend runs the steps of one operation in one transaction."""

    @abstractmethod
    async def _transaction(self, steps: Callable[[], Steps[T]], *, retry: bool = True) -> T:
        """Run the statements that `steps()` yields, sending back their rows. `retry`: it may safely run twice."""

    # Runs

    async def _get(self, run_id: str) -> RunRecord | None:
        rows = await self._rows("get_run", run_id=run_id)
        return record(rows[0]) if rows else None

    async def get_owned(self, run_ids: Sequence[str]) -> Mapping[str, OwnedRun]:
        rows = await self._rows("get_owned", ids=[*run_ids]) if run_ids else ()
        return {row["run_id"]: owned(row) for row in rows}

    async def _list(self, thread_id: str, limit: int, offset: int, status: RunStatus | None) -> Sequence[RunRecord]:
        rows = await self._rows("list_runs", thread_id=thread_id, limit=limit, offset=offset, status=status)
        return [record(row) for row in rows]

    async def _unfinished_of(self, user_id: str | None, status: RunStatus | None) -> Sequence[Unfinished]:
        rows = await self._rows("unfinished_of", user_id=user_id, status=status)
        return [Unfinished(row["run_id"], row["thread_id"], bool(row["hidden"])) for row in rows]

    async def _admit(self, run: NewRun, lease_seconds: float) -> Admission:
        return await self._transaction(lambda: steps.admit(run, lease_seconds), retry=False)

    async def start(self, lease: Lease, *, lease_seconds: float) -> RunStatus | None:
        return await self._transaction(lambda: steps.start(lease, lease_seconds))

    async def renew(self, leases: Sequence[Lease], *, lease_seconds: float) -> Mapping[str, CancelAction | None]:
        if not leases:
            return {}
        rows = await self._rows("renew", **_columns(leases), lease_seconds=lease_seconds)
        return {row["run_id"]: row["cancel_action"] for row in rows}

    async def finish(self, lease: Lease, outcome: RunOutcome) -> Ended | None:
        return await self._transaction(lambda: steps.finish(lease, outcome), retry=False)

    async def roll_back(self, lease: Lease) -> Ended | None:
        return await self._transaction(lambda: steps.roll_back(lease), retry=False)

    async def _cancel(self, run_id: str, action: CancelAction) -> Cancelled | None:
        return await self._transaction(lambda: steps.cancel(run_id, action), retry=False)

    async def close_run(self, run_id: str) -> None:
        await self._transaction(lambda: steps.close(run_id))

    async def sweep(self, *, limit: int = 100, adoption_seconds: float = 0.0) -> Sequence[Unclosed]:
        lapsed = await self._rows("find_lapsed", limit=limit, adoption_seconds=adoption_seconds)
        taken = [await self._transaction(partial(steps.take_over, row["run_id"]), retry=False) for row in lapsed]
        return [unclosed for unclosed in taken if unclosed is not None]

    async def adoptable(self, *, limit: int = 100) -> Sequence[RunRecord]:
        return [record(row) for row in await self._rows("find_adoptable", limit=limit)]

    async def adopt(self, run_id: str, owner: str, *, lease_seconds: float) -> Admission | None:
        return await self._transaction(lambda: steps.adopt(run_id, owner, lease_seconds), retry=False)

    async def release(self, leases: Sequence[Lease]) -> Sequence[str]:
        rows = await self._rows("release_runs", **_columns(leases)) if leases else []
        released = {row["run_id"] for row in rows}
        return [run_id for run_id in dict.fromkeys(lease.run_id for lease in leases) if run_id in released]

    async def delete(self, run_id: str) -> bool:
        return bool(await self._rows("delete_run", run_id=run_id))

    # Threads

    async def _create_thread(
        self, thread_id: str, user_id: str | None, metadata: Mapping[str, Any], config: Mapping[str, Any], hidden: bool
    ) -> ThreadRow | None:
        rows = await self._transaction(
            lambda: steps.one("insert_thread", new_thread(thread_id, user_id, metadata, config, hidden=hidden)),
            retry=False,
        )
        return thread(rows[0]) if rows else None

    async def get_thread(self, thread_id: str) -> ThreadRow | None:
        rows = await self._rows("get_thread", thread_id=thread_id)
        return thread(rows[0]) if rows else None

    async def get_threads(self, thread_ids: Sequence[str]) -> tuple[ThreadRow, ...]:
        rows = await self._rows("get_threads", ids=[*thread_ids]) if thread_ids else ()
        return tuple(thread(row) for row in rows)

    async def get_thread_head(self, thread_id: str) -> ThreadHead | None:
        rows = await self._rows("get_thread_head", thread_id=thread_id)
        return head(rows[0]) if rows else None

    async def _update_thread(
        self, thread_id: str, metadata: Mapping[str, Any], config: Mapping[str, Any]
    ) -> ThreadRow | None:
        return await self._transaction(lambda: steps.update_thread(thread_id, metadata, config))

    async def delete_thread(self, thread_id: str) -> bool:
        return await self._transaction(lambda: steps.delete_thread(thread_id))

    async def settle_thread(self, thread_id: str, outcome: RunOutcome, *, if_state_of: datetime | None = None) -> bool:
        return await self._transaction(lambda: steps.settle(thread_id, outcome, if_state_of), retry=False)

    async def expired_threads(self, *, limit: int = 100) -> Sequence[str]:
        return [row["thread_id"] for row in await self._rows("find_expired", limit=limit)]

    async def _search_threads(
        self,
        ids: Sequence[str] | None,
        unowned: bool,
        status: ThreadStatus | None,
        metadata: Mapping[str, Any],
        order: str,
        limit: int,
        offset: int,
    ) -> Sequence[ThreadRow]:
        wanted = match(ids, unowned, status, metadata)
        rows = await self._rows("search_threads", **wanted, order=order, limit=limit, offset=offset)
        return [thread(row) for row in rows]

    async def _count_threads(
        self, ids: Sequence[str] | None, unowned: bool, status: ThreadStatus | None, metadata: Mapping[str, Any]
    ) -> int:
        rows = await self._rows("count_threads", **match(ids, unowned, status, metadata))
        return int(rows[0]["found"])

    async def _rows(self, statement: str, **values: Any) -> list[Row]:
        return await self._transaction(lambda: steps.one(statement, values))


def _columns(leases: Sequence[Lease]) -> dict[str, list[Any]]:
    return {
        "run_ids": [lease.run_id for lease in leases],
        "owners": [lease.owner for lease in leases],
        "fences": [lease.fence for lease in leases],
    }
