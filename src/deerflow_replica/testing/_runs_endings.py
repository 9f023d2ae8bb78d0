"""How a run ends, and what it leaves in its thread."""

from __future__ import annotations

import pytest

from ..runs.registry import rules
from ..runs.registry.base import RunRegistry
from ..runs.registry.records import Ended, Lease, RunOutcome, Waiting
from ._runs_common import LONG, RunRegistryFixtures, admit, run_of, thread_of


class EndingContract(RunRegistryFixtures):
    @pytest.mark.parametrize(
        ("outcome", "thread_status"),
        [
            (rules.succeeded({"x": 1}, {}), "idle"),
            (rules.succeeded({"x": 1}, {"task": [{"value": "?", "id": "i"}]}), "interrupted"),
            (rules.failed({"error": "ValueError", "message": "no"}), "error"),
            (rules.cancelled(), "interrupted"),
        ],
    )
    async def test_outcome_reaches_run_and_thread(
        self, registry: RunRegistry, outcome: RunOutcome, thread_status: str
    ) -> None:
        admitted = await admit(registry, "r1")
        assert await registry.finish(admitted.lease, outcome)
        record, thread = await run_of(registry, "r1"), await thread_of(registry)
        assert (record.status, record.error) == (outcome.status, outcome.error)
        assert (thread.status, thread.error, thread.values) == (thread_status, outcome.error, outcome.values)
        assert thread.interrupts == outcome.interrupts

    async def test_thread_stays_busy_while_a_run_waits(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r1")
        await admit(registry, "r2")
        await registry.finish(first.lease, rules.failed({"error": "E", "message": ""}))
        thread = await thread_of(registry)
        assert thread.status == "busy"

    async def test_values_stay_when_a_run_leaves_none(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r1")
        await registry.finish(first.lease, rules.succeeded({"x": 1}, {}))
        second = await admit(registry, "r2")
        await registry.finish(second.lease, rules.cancelled())
        thread = await thread_of(registry)
        assert thread.values == {"x": 1}

    async def test_run_ends_once(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1")
        assert await registry.finish(admitted.lease, rules.succeeded(None, {}))
        assert not await registry.finish(admitted.lease, rules.cancelled())
        record = await run_of(registry, "r1")
        assert record.status == "success"

    async def test_no_write_under_another_owner_or_fence(self, registry: RunRegistry) -> None:
        await admit(registry, "r1")
        for lease in (Lease("r1", "two", 1), Lease("r1", "one", 2), Lease("r0", "one", 1)):
            assert not await registry.finish(lease, rules.cancelled())
            assert await registry.start(lease, lease_seconds=LONG) is None
            assert await registry.renew([lease], lease_seconds=LONG) == {}
        record = await run_of(registry, "r1")
        assert record.status == "running"

    async def test_delete_takes_only_what_is_closed(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1")
        assert not await registry.delete("r1")
        await registry.finish(admitted.lease, rules.cancelled())
        assert not await registry.delete("r1")
        await registry.close_run("r1")
        assert await registry.delete("r1")
        assert not await registry.delete("r1")
        assert await registry.get("r1") is None

    async def test_end_names_who_is_next(self, registry: RunRegistry, peer: RunRegistry) -> None:
        first = await admit(registry, "r1")
        second = await admit(peer, "r2", owner="two")
        third = await admit(registry, "r3")
        assert await registry.finish(first.lease, rules.succeeded(None, {})) == Ended("t", Waiting("r2", "two"))
        assert await peer.start(second.lease, lease_seconds=LONG) == "running"
        assert await peer.finish(second.lease, rules.succeeded(None, {})) == Ended("t", Waiting("r3", "one"))
        assert await registry.start(third.lease, lease_seconds=LONG) == "running"
        assert await registry.finish(third.lease, rules.succeeded(None, {})) == Ended("t", None)
