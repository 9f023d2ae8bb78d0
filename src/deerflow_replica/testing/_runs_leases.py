"""Leases, and what is done for replicas that lost theirs."""

from __future__ import annotations

import asyncio

from ..runs.registry import rules
from ..runs.registry.base import RunRegistry
from ..runs.registry.records import Lease, Unclosed, Waiting
from ._contract import for_one_of
from ._runs_common import LONG, SHORT, RunRegistryFixtures, admit, run_of, swept, thread_of


class LeaseContract(RunRegistryFixtures):
    async def test_renewal_answers_for_all_held_runs_at_once(self, registry: RunRegistry) -> None:
        leases = [(await admit(registry, f"r{number}", f"t{number}")).lease for number in range(3)]
        assert await registry.cancel("r1")
        renewed = await registry.renew([*leases, Lease("gone", "one", 1)], lease_seconds=LONG)
        assert renewed == {"r0": None, "r1": "interrupt", "r2": None}
        assert await registry.renew([], lease_seconds=LONG) == {}

    async def test_renewed_lease_does_not_lapse(self, registry: RunRegistry) -> None:
        async def is_renewed(seconds: float) -> bool:
            renewed, other = f"renewed-{seconds}", f"other-{seconds}"
            lapsing = await admit(registry, renewed, renewed, lease_seconds=seconds)
            await admit(registry, other, other, lease_seconds=seconds)
            if not await registry.renew([lapsing.lease], lease_seconds=LONG):
                return False
            await swept(registry, other)
            return (await run_of(registry, renewed)).status == "running"

        assert await for_one_of((0.5, 5.0), is_renewed)

    async def test_lapsed_run_ends_as_an_orphan_and_fences_its_executor(
        self, registry: RunRegistry, peer: RunRegistry
    ) -> None:
        admitted = await admit(registry, "r1", lease_seconds=SHORT)
        unclosed = await swept(peer, "r1")
        assert (unclosed.orphaned, unclosed.status, unclosed.error) == (True, "error", rules.ORPHANED)
        assert await registry.renew([admitted.lease], lease_seconds=LONG) == {}
        assert not await registry.finish(admitted.lease, rules.succeeded({"late": 1}, {}))
        record, thread = await run_of(registry, "r1"), await thread_of(registry)
        assert (record.status, record.error) == ("error", rules.ORPHANED)
        assert (thread.status, thread.error, thread.values) == ("error", rules.ORPHANED, None)
        assert (await admit(peer, "r2", owner="two")).record.status == "running"

    async def test_lapsed_lease_is_not_prolonged(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1", lease_seconds=0)
        assert await registry.renew([admitted.lease], lease_seconds=LONG) == {}

    async def test_orphan_is_named_by_one_sweeper_and_not_again_when_closed(
        self, registry: RunRegistry, peer: RunRegistry
    ) -> None:
        await admit(registry, "r1", lease_seconds=0)
        sweeps = await asyncio.gather(*((registry, peer)[number % 2].sweep() for number in range(8)))
        named = [unclosed.run_id for sweep in sweeps for unclosed in sweep]
        if not named:  # each sweeper skipped what it saw another one work on
            named = [(await swept(registry, "r1")).run_id]
        assert named == ["r1"]
        await registry.close_run("r1")
        assert await peer.sweep() == []

    async def test_finished_run_that_was_not_closed_is_named(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1", lease_seconds=0.3)
        await registry.finish(admitted.lease, rules.succeeded({"x": 1}, {}))
        unclosed = await swept(registry, "r1")
        assert unclosed == Unclosed("r1", "t", "success", None, orphaned=False)
        record = await run_of(registry, "r1")
        assert record.status == "success"

    async def test_closed_run_is_never_named(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1", "t1", lease_seconds=0)
        await registry.close_run("r1")  # not over: no effect
        assert (await swept(registry, "r1")).orphaned
        other = await admit(registry, "r2", "t2", lease_seconds=0)
        assert admitted.lease != other.lease
        await registry.finish(other.lease, rules.cancelled())
        await registry.close_run("r2")
        assert "r2" not in [unclosed.run_id for unclosed in await registry.sweep()]

    async def test_waiting_run_of_a_lost_replica_ends_too(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r1")
        waiting = await admit(registry, "r2", lease_seconds=SHORT)
        assert (await swept(registry, "r2")).orphaned
        assert await registry.start(waiting.lease, lease_seconds=LONG) is None
        await registry.finish(first.lease, rules.succeeded(None, {}))
        thread = await thread_of(registry)
        assert thread.status == "idle"

    async def test_orphan_names_who_is_next(self, registry: RunRegistry) -> None:
        await admit(registry, "r1", lease_seconds=SHORT)
        await admit(registry, "r2", owner="two")
        assert (await swept(registry, "r1")).next == Waiting("r2", "two")
