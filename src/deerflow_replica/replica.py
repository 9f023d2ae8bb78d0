"""One replica, one handle: everything that a configuration names, opened, and closed again."""

from __future__ import annotations

import secrets
import socket
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Required, TypedDict, Unpack
from uuid import UUID

from langchain_core.utils.uuid import uuid7

from ._checks import CheckResult, check_parts
from ._openers import Borrowed, Parts, open_parts
from .config import AppConfig
from .context import DeerFlowContext
from .errors import ConfigError, ReplicaError
from .runs.events import requested_modes
from .runs.manager import RunManager
from .runs.mirror import ThreadMirror
from .runs.registry.base import RunRegistry
from .runs.registry.documents import to_json
from .runs.registry.records import MultitaskStrategy
from .runs.registry.rules import check_strategy
from .runs.request import Run, RunRequest, opened
from .threads.access import acting_user, claim_for_run

if TYPE_CHECKING:
    from langchain.agents.middleware import AgentMiddleware
    from langchain_core.language_models import BaseChatModel
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.store.base import BaseStore

    from .counters.base import ModelCounters
    from .counters.health import ModelHealth
    from .memory.base import MemoryStorage
    from .stream.base import StreamBridge, StreamItem
    from .threads.base import ThreadMap


class RunArguments(TypedDict, total=False):
    """The keywords of `Replica.start_run`."""

    thread_id: Required[str | UUID]
    user_id: str | None
    agent_name: str | None
    run_id: str | UUID | None
    config: Mapping[str, Any] | None
    stream_mode: str | Sequence[str]
    subgraphs: bool
    multitask_strategy: MultitaskStrategy
    metadata: Mapping[str, Any] | None


class Replica:
    """The parts of one open replica, and runs on it. Made by `open_replica`; after it closed, every method raises
    `ReplicaError`.
    """

    def __init__(self, config: AppConfig, replica_id: str, parts: Parts, manager: RunManager) -> None:
        self._config = config
        self._replica_id = replica_id
        self._parts = parts
        self._manager = manager
        self._is_closed = False

    def __repr__(self) -> str:
        return f"Replica({self._replica_id!r}{', closed' if self._is_closed else ''})"

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=1)

    @property
    def config(self) -> AppConfig:
        return self._config

    @property
    def replica_id(self) -> str:
        """`replica.id` with a random part: new each time a replica is opened."""
        return self._replica_id

    @property
    def bridge(self) -> StreamBridge:
        return self._parts.bridge

    @property
    def store(self) -> BaseStore:
        return self._parts.store

    @property
    def memory(self) -> MemoryStorage:
        return self._parts.memory

    @property
    def threads(self) -> ThreadMap:
        return self._parts.threads

    @property
    def counters(self) -> ModelCounters:
        return self._parts.counters

    @property
    def health(self) -> ModelHealth:
        return self._parts.health

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any]:
        """LangGraph's own saver. Runs write through one of their own, over the same connections."""
        return self._parts.checkpointer

    @property
    def runs(self) -> RunRegistry:
        return self._parts.runs

    def middleware(
        self, extra: Sequence[AgentMiddleware[Any, Any]] = (), *, models: Mapping[str, BaseChatModel] | None = None
    ) -> list[AgentMiddleware[Any, Any]]:
        """New middlewares in the right order: ownership, `extra`, memory, routing (with `models`), the counter.

        So the counter sees each attempt and the model finally chosen. `models` are what calls may be routed to, by the
        names they count under. `ConfigError` for a counter in `extra`: each call would count twice.
        """
        from .middleware.counter import ModelCounterMiddleware
        from .middleware.memory import MemoryMiddleware
        from .middleware.ownership import ThreadOwnershipMiddleware
        from .middleware.routing import ModelRoutingMiddleware

        self._check_open()
        if any(isinstance(one, ModelCounterMiddleware) for one in extra):
            raise ConfigError("extra: a ModelCounterMiddleware is there already, innermost; a second would count twice")
        before = [ThreadOwnershipMiddleware(self.threads), *extra, MemoryMiddleware(self.memory)]
        if not self._config.model_feedback.enabled:
            return before
        routing = [] if models is None else [ModelRoutingMiddleware(self.health, models)]
        return [*before, *routing, ModelCounterMiddleware(self.counters, models=models)]

    def context(
        self,
        *,
        thread_id: str | UUID,
        user_id: str | None = None,
        agent_name: str | None = None,
        run_id: str | UUID | None = None,
    ) -> DeerFlowContext:
        """The context of a run here. `ContextError` for values that cannot be meant."""
        self._check_open()
        return DeerFlowContext(self._config, thread_id, agent_name, user_id, run_id)  # type: ignore[arg-type]  # UUIDs become text

    async def start_run(
        self,
        graph: Any,
        input: Any,
        *,
        thread_id: str | UUID,
        user_id: str | None = None,
        agent_name: str | None = None,
        run_id: str | UUID | None = None,
        config: Mapping[str, Any] | None = None,
        stream_mode: str | Sequence[str] = "values",
        subgraphs: bool = False,
        multitask_strategy: MultitaskStrategy = "enqueue",
        metadata: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run in the background and return; its events go to the bridge.

        On a busy thread it waits for its turn (`enqueue`), is refused (`reject`), or ends the runs before it, which
        stay as they are then (`interrupt`) or are as if they had never been (`rollback`). Raises before the graph is
        entered: `ThreadOwnershipError`, `RunConflictError` (`reject` on a busy thread, or a run id that is taken),
        `ValueError` for an unknown mode or strategy. A graph that fails gives an `error` event, END and status `error`.
        """
        context = self.context(
            thread_id=thread_id, user_id=user_id, agent_name=agent_name, run_id=run_id or str(uuid7())
        )
        self._manager.check_open()
        requested_modes(stream_mode)
        check_strategy(multitask_strategy)
        await claim_for_run(self.threads, context)
        return await self._manager.start(
            RunRequest(
                open_graph=opened(graph),
                context_for=lambda _: context,
                input=input,
                thread_id=context.thread_id,
                run_id=context.run_id,
                user_id=acting_user(context),
                config=_run_config(config or {}, context),
                stream_mode=stream_mode,
                subgraphs=subgraphs,
                multitask_strategy=multitask_strategy,
                metadata=metadata or {},
                kwargs=_kwargs(input, stream_mode, subgraphs=subgraphs),
            )
        )

    async def stream_run(
        self, graph: Any, input: Any, **arguments: Unpack[RunArguments]
    ) -> AsyncGenerator[StreamItem, None]:
        """Start a run, with the arguments of `start_run`, and yield its events up to and with END.

        Leaving the iterator does not cancel the run.
        """
        run = await self.start_run(graph, input, **arguments)
        async with aclosing(self.bridge.subscribe(run.run_id, last_event_id="0-0")) as items:
            async for item in items:
                yield item

    async def check(self) -> tuple[CheckResult, ...]:
        """Ask every part for something small, all at once: who answers, and how fast."""
        self._check_open()
        return await check_parts(self)

    async def _close(self) -> None:
        try:
            await self._manager.close(grace_seconds=self._config.replica.shutdown_grace_seconds)
        finally:
            self._is_closed = True  # only now: a run that begins in its grace may ask for its context

    def _check_open(self) -> None:
        if self._is_closed:
            raise ReplicaError("closed: this replica was left")


class open_replica:  # noqa: N801  # it is called like a function and used like a context manager
    """Open what the configuration names; an async context manager that closes what it opened.

    Entering connects to every server at once, within `replica.connect_timeout_seconds`, and sets its tables up.
    Raises `StreamUnavailableError` or `StoreUnavailableError` with one line for each server that cannot be reached,
    `ConfigError` for what is not available, `MissingExtraError` for a driver that is not installed; nothing stays open
    then. Parts passed in are borrowed: used as they are and left open. Leaving gives the runs in flight
    `replica.shutdown_grace_seconds`, then ends them with the error `ReplicaShutdown`.
    """

    def __init__(
        self,
        config: AppConfig | None = None,
        *,
        bridge: StreamBridge | None = None,
        store: BaseStore | None = None,
        memory: MemoryStorage | None = None,
        threads: ThreadMap | None = None,
        counters: ModelCounters | None = None,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
    ) -> None:
        if config is not None and not isinstance(config, AppConfig):
            raise TypeError(f"config must be an AppConfig, not {type(config).__name__}")
        self._config = AppConfig() if config is None else config
        self._borrowed = Borrowed(bridge, store, memory, threads, counters, checkpointer)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Replica:
        try:
            return await self._open()
        except BaseException:
            await self._stack.aclose()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> Replica:
        config = self._config
        replica_id = f"{config.replica.id or socket.gethostname()}-{secrets.token_hex(4)}"
        parts = await open_parts(config, replica_id, self._borrowed, self._stack)
        manager = RunManager(
            parts.bridge,
            parts.runs,
            replica_id=replica_id,
            lease_seconds=config.gateway.lease_seconds,
            retention_seconds=config.gateway.retention_seconds,
            max_concurrent_runs=config.gateway.max_concurrent_runs,
            checkpointer=parts.checkpointer,
            mirror=ThreadMirror(parts.runs, parts.threads),
        )
        replica = Replica(config, replica_id, parts, manager)
        self._stack.push_async_callback(replica._close)
        await manager.open()
        return replica


def _run_config(given: Mapping[str, Any], context: DeerFlowContext) -> dict[str, Any]:
    """The caller's config with the run's own identity, which wins."""
    identity = {"thread_id": context.thread_id, "run_id": context.run_id}
    configurable = {**(given.get("configurable") or {}), **identity}
    return {**given, "configurable": configurable, "metadata": {**(given.get("metadata") or {}), **identity}}


def _kwargs(input: Any, stream_mode: str | Sequence[str], *, subgraphs: bool) -> dict[str, Any]:
    """What the row keeps of the request. Input without a JSON form is only for the process it was passed in."""
    kwargs = {"input": input, "stream_mode": stream_mode, "subgraphs": subgraphs}
    try:
        to_json(kwargs)
    except TypeError:
        return {**kwargs, "input": None}
    return kwargs
