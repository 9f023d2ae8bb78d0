"""Whether the parts of a replica answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config.targets import masked, target_of
from .memory import FileMemoryStorage, MemoryStorage

if TYPE_CHECKING:
    from .replica import Replica

_NOBODY = "deerflow-replica-check"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One part's answer: `detail` says where the part is, or why it did not answer; `seconds` how long it took."""

    name: str
    section: str
    ok: bool
    detail: str
    seconds: float


async def check_parts(replica: Replica) -> tuple[CheckResult, ...]:
    async def bridge() -> None:
        await replica.bridge.stream_exists(_NOBODY)

    async def store() -> None:
        await replica.store.aget((_NOBODY,), _NOBODY)

    async def checkpointer() -> None:
        await replica.checkpointer.aget_tuple({"configurable": {"thread_id": _NOBODY, "checkpoint_ns": ""}})

    async def memory() -> None:
        await asyncio.to_thread(_use, replica.memory)

    async def threads() -> None:
        await replica.threads.owner_of(_NOBODY)

    async def counters() -> None:
        await replica.counters.totals()

    async def runs() -> None:
        await replica.runs.get(_NOBODY)

    asked: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("stream_bridge", bridge),
        ("store", store),
        ("checkpointer", checkpointer),
        ("memory", memory),
        ("user_thread_mapping", threads),
        ("model_feedback", counters),
        ("database", runs),
    ]
    return tuple(await asyncio.gather(*(_checked(replica, section, ask) for section, ask in asked)))


def _use(memory: MemoryStorage) -> None:
    if isinstance(memory, FileMemoryStorage):
        memory.require_writable()
    memory.load(user_id=_NOBODY)


async def _checked(replica: Replica, section: str, ask: Callable[[], Awaitable[None]]) -> CheckResult:
    began = time.monotonic()
    try:
        async with asyncio.timeout(replica.config.replica.connect_timeout_seconds):
            await ask()
        ok, detail = True, _where(replica, section)
    except Exception as error:  # whatever a part answers instead is what the caller wants to know
        ok, detail = False, masked(f"{type(error).__name__}: {error}")
    return CheckResult(ask.__name__, section, ok, detail, time.monotonic() - began)


def _where(replica: Replica, section: str) -> str:
    if section == "memory":
        return type(replica.memory).__name__
    target = target_of(replica.config, section)
    return " ".join(part for part in (target.kind, masked(target.url)) if part)
