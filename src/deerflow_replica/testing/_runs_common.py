"""The fixtures that the parts of `RunRegistryContract` share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest

from ..runs.registry.base import RunRegistry
from ..runs.registry.records import Admission, NewRun, RunRecord, ThreadRow, Unclosed
from ._contract import Contract

LONG = 60.0  # a lease that no test outlives
SHORT = 0.05

Build: TypeAlias = Callable[[], RunRegistry]


class RunRegistryFixtures(Contract):
    @pytest.fixture
    def build(self) -> Build:
        """A function that makes one more replica's registry, each on the same new rows."""
        raise NotImplementedError("override the fixture `build`")

    @pytest.fixture
    async def registry(self, build: Build) -> AsyncIterator[RunRegistry]:
        async with build() as registry:
            yield registry

    @pytest.fixture
    async def peer(self, registry: RunRegistry, build: Build) -> AsyncIterator[RunRegistry]:
        """Another replica's registry."""
        async with build() as peer:
            yield peer


async def admit(
    registry: RunRegistry, run_id: str, thread_id: str = "t", *, lease_seconds: float = LONG, **fields: Any
) -> Admission:
    run = NewRun(run_id=run_id, thread_id=thread_id, **{"owner": "one", **fields})
    return await registry.admit(run, lease_seconds=lease_seconds)


async def run_of(registry: RunRegistry, run_id: str) -> RunRecord:
    record = await registry.get(run_id)
    assert record is not None
    return record


async def thread_of(registry: RunRegistry, thread_id: str = "t") -> ThreadRow:
    row = await registry.get_thread(thread_id)
    assert row is not None
    return row


async def swept(registry: RunRegistry, run_id: str) -> Unclosed:
    """Sweep until the run is named."""
    for _ in range(1000):
        for unclosed in await registry.sweep():
            if unclosed.run_id == run_id:
                return unclosed
        await asyncio.sleep(0.01)  # leases lapse by the server's clock: there is nothing to wait for but time
    raise AssertionError(f"{run_id} was never named")
