"""What a caller asks to be run, and the handle of what then runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from .registry.records import MultitaskStrategy, RunRecord, RunStatus

OpenGraph = Callable[[], AbstractAsyncContextManager[Any]]


def _no_context(graph: Any) -> None:
    """For a graph that takes none."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Everything that a run needs. The caller has checked who may use the thread.

    `open_graph` is entered in the run's own task and yields the compiled graph; a checkpointer on it is fenced by the
    run's lease. `context_for(graph)` is what the graph gets as `context=`. `input` may be a `Command`. `config` is
    whole: the caller has put `thread_id` and `run_id` into `configurable`. `kwargs` is the JSON that the row keeps.
    `thread_metadata` is merged into the thread's row. Without `create_thread` an unknown thread is a `LookupError`.
    With `on_completion="delete"` the thread goes `retention_seconds` after its last run. The run begins `after_seconds`
    from now at the earliest, and lets later runs of its thread pass until then. One that names an assistant is
    executed by another replica if this one leaves before it began.
    """

    open_graph: OpenGraph
    input: Any
    thread_id: str
    run_id: str | None = None
    user_id: str | None = None
    assistant_id: str | None = None
    context_for: Callable[[Any], Any] = _no_context
    config: Mapping[str, Any] = field(default_factory=dict)
    stream_mode: str | Sequence[str] = "values"
    subgraphs: bool = False
    interrupt_before: str | Sequence[str] | None = None
    interrupt_after: str | Sequence[str] | None = None
    durability: str | None = None
    multitask_strategy: MultitaskStrategy = "enqueue"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    thread_metadata: Mapping[str, Any] = field(default_factory=dict)
    create_thread: bool = True
    hidden: bool = False
    on_completion: Literal["keep", "delete"] = "keep"
    after_seconds: float = 0.0


class Run:
    """A run that this replica executes."""

    def __init__(self, admitted: RunRecord, user_id: str | None, cancel: Callable[[], Awaitable[bool]]) -> None:
        self.run_id = admitted.run_id
        self.thread_id = admitted.thread_id
        self.user_id = user_id
        self._admitted = admitted
        self._cancel = cancel
        self._status: RunStatus = admitted.status
        self._over = asyncio.Event()

    def __repr__(self) -> str:
        return f"Run(run_id={self.run_id!r}, thread_id={self.thread_id!r}, status={self._status!r})"

    @property
    def status(self) -> RunStatus:
        return self._status

    async def wait(self) -> RunStatus:
        """Wait until the run's END is published, and return its status. Never raises the graph's error.

        A run that was rolled back is `interrupted`; one that another replica executes now is `pending`.
        """
        await self._over.wait()
        return self._status

    async def cancel(self) -> bool:
        """Ask the run to stop. False: it was over already."""
        return await self._cancel()

    def became(self, status: RunStatus, *, over: bool = False) -> None:
        """For the run's executor: the status as it is stored now; `over` once nothing more will happen."""
        self._status = status
        if over:
            self._over.set()


def opened(graph: Any) -> OpenGraph:
    """`open_graph` of a graph that needs no opening."""

    @asynccontextmanager
    async def open_graph() -> AsyncIterator[Any]:
        yield graph

    return open_graph
