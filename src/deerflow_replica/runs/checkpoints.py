"""The checkpoints of a run, taken back; those of a thread, copied. On LangGraph's savers, whichever it is."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, cast

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6

from .fencing import footprint_of, no_more_writes, unfenced
from .footprint import Found, older_writes

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    Saver = BaseCheckpointSaver[Any]

_LOG = logging.getLogger(__name__)
_NO_RUN = ""


class SaverTables(Protocol):
    """What is known of one saver: each method is one transaction, over all namespaces of the thread."""

    def errors(self) -> AbstractContextManager[None]:
        """Driver exceptions within, from any method of the saver, become ours."""
        ...

    async def heads_before(self, thread_id: str, run_id: str) -> list[tuple[str, str]]:
        """Namespace and id of each checkpoint that the run went on from and that is the last one without the run's."""
        ...

    async def is_built_upon(self, thread_id: str, run_id: str) -> bool:
        """Whether later runs went on from the run, with channels that are rebuilt from its writes."""
        ...

    async def delete_run(self, thread_id: str, run_id: str, touched: Iterable[Found]) -> None: ...

    async def copy_thread(self, source_id: str, target_id: str) -> None: ...


async def delete_run_checkpoints(saver: Saver, thread_id: str, run_id: str, *, before: str | None) -> None:
    """Leave the thread as it was before the run, which has stopped: state, head, history.

    `before` is the id of the head that the run found, None if it is not known or there was none. Pass the run's own
    saver: it remembers what the run wrote to checkpoints of earlier runs; with any other, of several questions in one
    node the first one is asked again. A saver that cannot delete gets a copy of the checkpoint `before` on top: the
    state is right, the history longer. Of an earlier run, what later states are rebuilt from (`DeltaChannel`) stays.
    `StoreUnavailableError`: try again.
    """
    await no_more_writes(saver)
    tables, footprint = _tables_of(saver), footprint_of(saver)
    if tables is not None and await tables.is_built_upon(thread_id, run_id):
        _LOG.warning("the checkpoints of run %s stay: the state of thread %s is rebuilt from them", run_id, thread_id)
        return None
    touched = await _guessed(saver, tables, thread_id, run_id) if footprint is None else footprint.touched
    if _implements(saver, "adelete_for_runs"):
        await saver.adelete_for_runs([run_id])
    elif tables is None:
        return await _put_on_top(unfenced(saver), thread_id, run_id, before)
    if tables is not None:
        await tables.delete_run(thread_id, run_id, touched)
    await _put_back(unfenced(saver), thread_id, touched)
    return None


async def take_back_writes(saver: Saver, thread_id: str) -> None:
    """What this saver of one request wrote to checkpoints that it found. A saver that is not known keeps it."""
    footprint, tables = footprint_of(saver), _tables_of(saver)
    if footprint is not None and tables is not None and footprint.touched:
        await tables.delete_run(thread_id, _NO_RUN, footprint.touched)
        await _put_back(unfenced(saver), thread_id, footprint.touched)


async def take_back_refused(saver: Saver, thread_id: str) -> None:
    """Of a run that failed, the command that the state's reducers refused: the graph stores it before it asks them, and
    would ask them again in every later run.
    """
    footprint = footprint_of(saver)
    if footprint is not None and footprint.is_a_command_alone:
        await take_back_writes(saver, thread_id)


async def copy_thread(saver: Saver, source_id: str, target_id: str) -> None:
    """Give `target_id`, which has none, the checkpoints of `source_id` with their ids, in all namespaces."""
    tables = _tables_of(saver)
    if _implements(saver, "acopy_thread"):
        await saver.acopy_thread(source_id, target_id)
    elif tables is not None:
        await tables.copy_thread(source_id, target_id)
    else:
        await _copy_one_by_one(saver, source_id, target_id)


def saver_errors(saver: Saver) -> AbstractContextManager[None]:
    """A lost server or file becomes `StoreUnavailableError` within, if the saver is one that is known."""
    tables = _tables_of(saver)
    return nullcontext() if tables is None else tables.errors()


def _implements(saver: Saver, method: str) -> bool:
    """Whether the saver has more than the base class, which only raises."""
    own = getattr(type(saver), method, None)
    return own is not None and own is not getattr(BaseCheckpointSaver, method, None)


def _tables_of(saver: Saver) -> SaverTables | None:
    """By the name of its class: to ask with `isinstance` would need its driver."""
    for kind in type(saver).__mro__:
        match f"{kind.__module__}.{kind.__name__}":
            case "langgraph.checkpoint.memory.InMemorySaver":
                from .savers.inmemory import InMemoryTables

                return InMemoryTables(cast(Any, saver))
            case "langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver":
                from .savers.sqlite import SqliteTables

                return SqliteTables(cast(Any, saver))
            case "langgraph.checkpoint.postgres.aio.AsyncPostgresSaver":
                from .savers.postgres import PostgresTables

                return PostgresTables(cast(Any, saver))
    return None


async def _guessed(saver: Saver, tables: SaverTables | None, thread_id: str, run_id: str) -> list[Found]:
    """What the run found where it went on, as far as that can be told from what is there now."""
    heads = [] if tables is None else await tables.heads_before(thread_id, run_id)
    with saver_errors(saver):
        found = [(head, await saver.aget_tuple(_config(thread_id, *head))) for head in heads]
    return [Found(*head, older_writes(saved.pending_writes or ())) for head, saved in found if saved is not None]


async def _put_back(saver: Saver, thread_id: str, touched: Iterable[Found]) -> None:
    for found in touched:
        config = _config(thread_id, found.checkpoint_ns, found.checkpoint_id)
        for task_id, writes in found.replaceable():
            await saver.aput_writes(config, writes, task_id)


async def _put_on_top(saver: Saver, thread_id: str, run_id: str, before: str | None) -> None:
    _LOG.warning(
        "a %s cannot delete the checkpoints of run %s: they stay in the history, under a copy of the one before it",
        type(saver).__name__,
        run_id,
    )
    head = await _head_before(saver, thread_id, run_id, before)
    if head is None:
        return await saver.adelete_thread(thread_id)
    config = _config(thread_id, "", _place(head.config)["checkpoint_id"])
    versions = head.checkpoint["channel_versions"]
    copy = {**head.checkpoint, "id": str(uuid6(clock_seq=-2))}
    metadata = {**head.metadata, "source": "fork"}
    await saver.aput(config, cast(Any, copy), cast(Any, metadata), versions)
    return None


async def _head_before(saver: Saver, thread_id: str, run_id: str, before: str | None) -> CheckpointTuple | None:
    if before is not None:
        return await saver.aget_tuple(_config(thread_id, "", before))
    async with aclosing(cast(Any, saver.alist(_config(thread_id, "")))) as newest_first:
        async for saved in newest_first:
            if saved.metadata.get("run_id") != run_id:
                return cast(CheckpointTuple, saved)
    return None


async def _copy_one_by_one(saver: Saver, source_id: str, target_id: str) -> None:
    newest_first = [saved async for saved in saver.alist({"configurable": {"thread_id": source_id}})]
    for saved in reversed(newest_first):
        where, parent = _place(saved.config), _place(saved.parent_config)
        config = _config(target_id, where.get("checkpoint_ns", ""), parent.get("checkpoint_id"))
        copied = await saver.aput(config, saved.checkpoint, saved.metadata, saved.checkpoint["channel_versions"])
        await _copy_writes(saver, copied, saved)


async def _copy_writes(saver: Saver, config: RunnableConfig, saved: CheckpointTuple) -> None:
    by_task: dict[str, list[tuple[str, Any]]] = {}
    for task_id, channel, value in saved.pending_writes or ():
        by_task.setdefault(task_id, []).append((channel, value))
    for task_id, writes in by_task.items():
        await saver.aput_writes(config, writes, task_id)


def _place(config: RunnableConfig | None) -> dict[str, Any]:
    return (config or {}).get("configurable", {})


def _config(thread_id: str, checkpoint_ns: str, checkpoint_id: str | None = None) -> RunnableConfig:
    where = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    return {"configurable": where if checkpoint_id is None else {**where, "checkpoint_id": checkpoint_id}}
