"""The states of one thread, through its graph and the replica's checkpointer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import InvalidUpdateError
from langgraph.types import StateSnapshot

from ..runs.checkpoints import saver_errors, take_back_writes
from ..runs.events import shown
from ..runs.fencing import saver_beside
from ..runs.registry import rules
from ..runs.registry.documents import to_json
from .access import mirror_thread
from .ids import system_assistant_id
from .problems import THREAD_NOT_FOUND, not_found, unprocessable

if TYPE_CHECKING:
    from ..replica import Replica
    from ..runs.registry.records import RunOutcome, ThreadRow
    from .endpoint import Call
    from .graphs import Graph

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class States:
    """`place` names a checkpoint by `checkpoint_ns`, `checkpoint_id` and `checkpoint_map`; empty: the head."""

    graph: Graph
    saver: BaseCheckpointSaver[Any]
    configurable: Mapping[str, Any]

    async def at(self, place: Mapping[str, Any], *, subgraphs: bool = False) -> StateSnapshot | None:
        """None: there is no such checkpoint."""
        with _asked_of(self.saver, ValueError):
            snapshot = await self.graph.aget_state(self._config(place), subgraphs=subgraphs)
        return snapshot if snapshot.created_at else None

    async def history(
        self, place: Mapping[str, Any], *, limit: int, before: str | None, metadata: Mapping[str, Any] | None
    ) -> list[StateSnapshot]:
        """Newest first."""
        earlier = None if before is None else self._config({"checkpoint_id": before})
        with _asked_of(self.saver, ValueError):
            found = self.graph.aget_state_history(
                self._config(place), limit=limit, before=earlier, filter=dict(metadata) if metadata else None
            )
            return [snapshot async for snapshot in found]

    async def update(self, place: Mapping[str, Any], values: Any, as_node: str | None) -> Mapping[str, Any]:
        """The `configurable` of the checkpoint that it made.

        The graph stores the update as writes of the checkpoint before it, and only then asks its reducers.
        """
        with _asked_of(self.saver, InvalidUpdateError, ValueError, TypeError, LookupError, AttributeError):
            try:
                config = await self.graph.aupdate_state(self._config(place), values, as_node)
            except BaseException:
                await take_back_writes(self.saver, self.configurable["thread_id"])
                raise
        return config.get("configurable", {})

    def _config(self, place: Mapping[str, Any]) -> Any:
        return {"configurable": {"checkpoint_ns": "", **place, **self.configurable}}


@contextmanager
def _asked_of(saver: BaseCheckpointSaver[Any], *refusals: type[Exception]) -> Iterator[None]:
    """422 for what the graph finds wrong in a request: no such subgraph or node, values that its reducers refuse."""
    with saver_errors(saver):
        try:
            yield
        except refusals as error:
            raise unprocessable(f"{type(error).__name__}: {error}") from error


@asynccontextmanager
async def opened_states(call: Call, row: ThreadRow) -> AsyncIterator[States | None]:
    """None for a thread whose graph is not known: it has never run, or the graph is not served here."""
    graph = call.gateway.graph_of(str(row.metadata.get("graph_id")))
    if graph is None:
        yield None
        return
    configurable = {
        "thread_id": row.thread_id,
        "graph_id": graph.name,
        "assistant_id": str(row.metadata.get("assistant_id") or system_assistant_id(graph.name)),
        **({} if call.user_id is None else {"user_id": call.user_id, "langgraph_auth_user_id": call.user_id}),
    }
    async with graph.opened(call.replica, {"configurable": configurable}) as compiled:
        own = saver_beside(call.replica.checkpointer)
        yield States(compiled.copy(update={"checkpointer": own}), own, configurable)


def left_by(snapshot: StateSnapshot, thread_id: str) -> RunOutcome:
    """What the thread's row keeps of a state that no run made."""
    interrupts = {task.id: shown(task.interrupts) for task in snapshot.tasks if task.interrupts}
    return rules.succeeded(_row_values(snapshot, thread_id), interrupts, stopped=bool(snapshot.next))


async def leave(replica: Replica, thread_id: str, outcome: RunOutcome) -> None:
    """Store it in the thread's row, unless a run has begun meanwhile: then that run will.

    404 for a thread that was deleted meanwhile, of which nothing may stay.
    """
    if await replica.runs.settle_thread(thread_id, outcome):
        await mirror_thread(replica, thread_id)
    elif await replica.runs.get_thread_head(thread_id) is None:
        with saver_errors(replica.checkpointer):
            await replica.checkpointer.adelete_thread(thread_id)
        raise not_found(THREAD_NOT_FOUND)


def _row_values(snapshot: StateSnapshot, thread_id: str) -> Any:
    try:
        to_json(snapshot.values)
    except TypeError as error:
        _log.warning("thread %s: its row keeps no values: %s", thread_id, error)
        return None
    return snapshot.values
