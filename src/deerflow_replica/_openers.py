"""The parts of a replica, as its configuration names them, over the connections that they share."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._drivers.databases import Databases
from ._reach import reach_all
from .config import AppConfig
from .config.targets import Target, problem_at, target_of
from .counters.opening import model_health, open_model_counters
from .errors import ConfigError
from .memory.opening import open_memory_storage
from .runs.registry.opening import run_registry
from .store.opening import open_store
from .stream.open import open_stream_bridge
from .threads.opening import open_thread_map

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.store.base import BaseStore

    from .counters.base import ModelCounters
    from .counters.health import ModelHealth
    from .memory.base import MemoryStorage
    from .runs.registry.base import RunRegistry
    from .stream.base import StreamBridge
    from .threads.base import ThreadMap


@dataclass(frozen=True)
class Borrowed:
    """The parts that the caller brought: they are used and left open."""

    bridge: StreamBridge | None = None
    store: BaseStore | None = None
    memory: MemoryStorage | None = None
    threads: ThreadMap | None = None
    counters: ModelCounters | None = None
    checkpointer: BaseCheckpointSaver[Any] | None = None

    def sections_to_open(self) -> list[str]:
        """The sections whose databases are needed; the run registry's always."""
        sections = {
            "checkpointer": self.checkpointer,
            "store": self.store,
            "user_thread_mapping": self.threads,
            "model_feedback": self.counters,
        }
        return ["database", *(section for section, part in sections.items() if part is None)]


@dataclass(frozen=True)
class Parts:
    """What a replica consists of."""

    bridge: StreamBridge
    store: BaseStore
    memory: MemoryStorage
    threads: ThreadMap
    counters: ModelCounters
    health: ModelHealth
    checkpointer: BaseCheckpointSaver[Any]
    runs: RunRegistry


async def open_parts(config: AppConfig, replica_id: str, borrowed: Borrowed, stack: AsyncExitStack) -> Parts:
    """Reach every server, then open on `stack` what was not brought; connections first, so that they close last."""
    enter = stack.enter_async_context
    bridge = await _reached(config, borrowed, stack)
    timeout, size = connect_timeout(config), config.database.pool_size
    databases = Databases(timeout_seconds=timeout, pool_size=size)
    shared = Connections(config, databases, stack)
    checkpointer, store, memory = borrowed.checkpointer, borrowed.store, borrowed.memory
    threads, counters = borrowed.threads, borrowed.counters
    if checkpointer is None:
        checkpointer = await open_checkpointer(shared)
    if store is None:
        store = await enter(open_store(config, databases=databases))
    if memory is None:
        memory = await enter(open_memory_storage(config, store=store))
    if threads is None:
        threads = await enter(open_thread_map(config, databases=databases))
    if counters is None:
        counters = await enter(open_model_counters(config, databases=databases, replica_id=replica_id))
    health = model_health(config, counters)
    stack.push_async_callback(health.close)
    await health.refresh()  # a new replica knows from its first call on which models are ill
    runs = await enter(run_registry(config, databases))
    return Parts(bridge, store, memory, threads, counters, health, checkpointer, runs)


async def _reached(config: AppConfig, borrowed: Borrowed, stack: AsyncExitStack) -> StreamBridge:
    sections = borrowed.sections_to_open()
    if borrowed.bridge is not None:
        await reach_all(config, sections, None)
        return borrowed.bridge
    bridges: list[StreamBridge] = []

    async def connect() -> None:
        bridges.append(await stack.enter_async_context(open_stream_bridge(config)))

    await reach_all(config, sections, connect)
    return bridges[0]


@dataclass
class Connections:
    """What the parts of one replica share on its loop: a pool for each PostgreSQL DSN and schema."""

    config: AppConfig
    databases: Databases
    stack: AsyncExitStack

    def __post_init__(self) -> None:
        self._pools: dict[tuple[str, str | None], Any] = {}

    async def pool(self, target: Target) -> Any:
        from ._drivers.langgraph_postgres import open_pool

        where = (target.url, target.schema)
        if where not in self._pools:
            pool = open_pool(
                *where,
                max_size=self.config.database.pool_size,
                timeout_seconds=connect_timeout(self.config),
                idle_seconds=self.config.gateway.lease_seconds / 2,  # a renewal leaves at least two thirds of a lease
            )
            self._pools[where] = await self.stack.enter_async_context(pool)
        return self._pools[where]


def connect_timeout(config: AppConfig) -> float:
    return config.replica.connect_timeout_seconds


async def open_checkpointer(shared: Connections) -> BaseCheckpointSaver[Any]:
    """LangGraph's own saver, by `checkpointer`, else by `database`."""
    target = target_of(shared.config, "checkpointer")
    if target.kind == "postgres":
        from ._drivers.langgraph_postgres import saver_on

        try:
            return await saver_on(await shared.pool(target), target.url)
        except ConfigError as error:
            raise problem_at(shared.config, target.key, str(error)) from error
    if target.kind == "sqlite":
        from ._drivers.langgraph_sqlite import open_saver

        saver = open_saver(target.url, timeout_seconds=connect_timeout(shared.config))
        return await shared.stack.enter_async_context(saver)
    from langgraph.checkpoint.memory import InMemorySaver

    return InMemorySaver()
