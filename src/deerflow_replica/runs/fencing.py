"""A checkpointer that writes only while its run's lease holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from ..errors import StoreUnavailableError
from .footprint import Footprint
from .gate import Gate

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 0.2


class _Fence:
    """Put before a saver's class: each write asks first, and is remembered for a rollback.

    LangGraph looks at the signature of `aput_writes` before it says a task's path, which orders the writes.
    """

    check_lease: Callable[[], None]
    footprint: Footprint
    gate: Gate
    unfenced: BaseCheckpointSaver[Any]

    async def aget_tuple(self, *args: Any, **kwargs: Any) -> Any:
        saved = await super().aget_tuple(*args, **kwargs)  # type: ignore[misc]  # the saver's class comes next
        if saved is not None:
            self.footprint.has_read(saved.config, saved.pending_writes)
        return saved

    async def aput(self, config: Any, checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        self.check_lease()
        with self.gate.passing():
            self.footprint.has_put(config, checkpoint["id"])
            return await super().aput(config, checkpoint, *args, **kwargs)  # type: ignore[misc]  # the saver's class comes next

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self.check_lease()
        with self.gate.passing():
            self.footprint.writes_to(config, task_id)
            await super().aput_writes(config, writes, task_id, task_path)  # type: ignore[misc]  # the saver's class comes next

    def put(self, *args: Any, **kwargs: Any) -> Any:
        self.check_lease()
        return super().put(*args, **kwargs)  # type: ignore[misc]  # the saver's class comes next

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self.check_lease()
        super().put_writes(config, writes, task_id, task_path)  # type: ignore[misc]  # the saver's class comes next


class _PooledFence(_Fence):
    """Over a pool: asks again inside the transaction, uses an explicit one, and does not fail with the server.

    A process that is stopped before the commit was sent leaves a transaction that the server ends before the lease
    lapses (`open_pool`); a pipeline's implicit one would wait for the process to go on, and commit. A server that
    restarts is waited for while the lease holds: every operation of the saver may safely run twice.
    """

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        return await self._answered(super().aput, *args, **kwargs)

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        await self._answered(super().aput_writes, config, writes, task_id, task_path)

    async def aget_tuple(self, *args: Any, **kwargs: Any) -> Any:
        return await self._answered(super().aget_tuple, *args, **kwargs)

    async def _answered(self, ask: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        from .._drivers.postgres import postgres_errors

        while True:
            self.check_lease()
            try:
                with postgres_errors():
                    return await ask(*args, **kwargs)
            except StoreUnavailableError as error:
                _LOG.warning("a checkpoint waits: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[Any]:
        async with super()._cursor(pipeline=pipeline) as cursor:  # type: ignore[misc]  # the saver's class comes next
            self.check_lease()
            yield cursor


def fenced_graph(graph: Any, check_lease: Callable[[], None]) -> Any:
    """The graph with its checkpointer fenced; a graph without one, or one that is no local graph, as it is."""
    saver = getattr(graph, "checkpointer", None)
    if not isinstance(saver, BaseCheckpointSaver):
        return graph
    return graph.copy(update={"checkpointer": fenced_saver(saver, check_lease)})


async def no_more_writes(saver: object) -> None:
    """Wait for what the run of this fenced saver still writes, and refuse the rest. Any other saver: nothing."""
    if isinstance(saver, _Fence):
        await saver.gate.close()


def footprint_of(saver: object) -> Footprint | None:
    return saver.footprint if isinstance(saver, _Fence) else None


def unfenced(saver: BaseCheckpointSaver[Any]) -> BaseCheckpointSaver[Any]:
    return saver.unfenced if isinstance(saver, _Fence) else saver


def saver_beside(saver: BaseCheckpointSaver[Any]) -> BaseCheckpointSaver[Any]:
    """A saver over the same connections for one request: it waits for nobody, and remembers what it wrote."""
    return _made(_Fence, saver, lambda: None)


def fenced_saver(saver: BaseCheckpointSaver[Any], check_lease: Callable[[], None]) -> BaseCheckpointSaver[Any]:
    """A saver over the same connections for one run, whose writes call `check_lease` first."""
    if not _is_over_pool(saver):
        return _made(_Fence, saver, check_lease)
    own = _made(_PooledFence, saver, check_lease)
    own.__dict__.update(supports_pipeline=False)
    return own


def _made(
    fence: type[_Fence], saver: BaseCheckpointSaver[Any], check_lease: Callable[[], None]
) -> BaseCheckpointSaver[Any]:
    """PostgreSQL savers do one operation at a time per object, pool or not: over a pool, each gets its own lock."""
    own: BaseCheckpointSaver[Any] = object.__new__(type(f"Fenced{type(saver).__name__}", (fence, type(saver)), {}))
    own.__dict__.update(saver.__dict__, check_lease=check_lease, footprint=Footprint(), gate=Gate(), unfenced=saver)
    if _is_over_pool(saver):
        own.__dict__.update(lock=asyncio.Lock())
    return own


def _is_over_pool(saver: BaseCheckpointSaver[Any]) -> bool:
    return hasattr(getattr(saver, "conn", None), "getconn")
