"""Runs that another replica takes over, and those that wait for a time."""

from __future__ import annotations

import asyncio

from ..runs.registry import rules
from ..runs.registry.base import RunRegistry
from ..runs.registry.records import Admission, Ended, Waiting
from ._contract import for_one_of
from ._runs_common import LONG, RunRegistryFixtures, admit, run_of, swept, thread_of


async def adopted(registry: RunRegistry, run_id: str, owner: str = "heir") -> Admission:
    """Try until its lease has lapsed."""
    for _ in range(1000):
        if admission := await registry.adopt(run_id, owner, lease_seconds=LONG):
            return admission
        await asyncio.sleep(0.01)  # leases lapse by the server's clock: there is nothing to wait for but time
    raise AssertionError(f"{run_id} was never adoptable")


class AdoptionContract(RunRegistryFixtures):
    async def test_pending_run_of_a_lost_replica_is_adopted(self, registry: RunRegistry, peer: RunRegistry) -> None:
        first = await admit(registry, "r1")
        lost = await admit(registry, "r2", lease_seconds=0, assistant_id="a", kwargs={"input": 1})
        assert [(record.run_id, record.kwargs) for record in await peer.adoptable()] == [("r2", {"input": 1})]
        heir = await adopted(peer, "r2")
        assert (heir.record.status, heir.record.owner, heir.lease.fence) == ("pending", "heir", lost.lease.fence + 1)
        assert await peer.adopt("r2", "third", lease_seconds=LONG) is None
        assert await peer.adoptable() == []
        assert await registry.start(lost.lease, lease_seconds=LONG) is None
        assert await registry.renew([lost.lease], lease_seconds=LONG) == {}
        assert await registry.finish(first.lease, rules.succeeded(None, {})) == Ended("t", Waiting("r2", "heir"))
        assert await peer.start(heir.lease, lease_seconds=LONG) == "running"
        assert await registry.finish(lost.lease, rules.cancelled()) is None
        assert await peer.finish(heir.lease, rules.succeeded(None, {}))

    async def test_what_had_begun_or_names_no_assistant_is_not_adopted(self, registry: RunRegistry) -> None:
        await admit(registry, "running", "t1", lease_seconds=0, assistant_id="a")
        await admit(registry, "before", "t2")
        await admit(registry, "nameless", "t2", lease_seconds=0)
        await admit(registry, "held", "t2", assistant_id="a")
        assert await registry.adoptable() == []
        for run_id in ("running", "nameless", "held", "unknown"):
            assert await registry.adopt(run_id, "heir", lease_seconds=LONG) is None

    async def test_what_can_be_adopted_is_swept_only_after_a_while(self, registry: RunRegistry) -> None:
        await admit(registry, "r1")
        await admit(registry, "r2", lease_seconds=0, assistant_id="a")
        await admit(registry, "r3", lease_seconds=0)
        assert [unclosed.run_id for unclosed in await registry.sweep(adoption_seconds=LONG)] == ["r3"]
        assert (await run_of(registry, "r2")).status == "pending"
        assert (await swept(registry, "r2")).orphaned
        assert (await run_of(registry, "r2")).error == rules.ORPHANED
        assert (await thread_of(registry)).status == "busy"

    async def test_of_many_adopters_one_succeeds(self, registry: RunRegistry, peer: RunRegistry) -> None:
        await admit(registry, "r1", lease_seconds=0, assistant_id="a", start=False)
        answers = await asyncio.gather(
            *((registry, peer)[number % 2].adopt("r1", f"heir{number}", lease_seconds=LONG) for number in range(10))
        )
        assert sum(answer is not None for answer in answers) == 1

    async def test_rollback_of_a_lost_replica_is_adopted(self, registry: RunRegistry, peer: RunRegistry) -> None:
        lost = await admit(registry, "r1", lease_seconds=0.3)
        await registry.cancel("r1", action="rollback")
        heir = await adopted(peer, "r1")
        assert heir.record.status == "running"
        assert await registry.roll_back(lost.lease) is None
        assert await peer.roll_back(heir.lease)
        assert await registry.get("r1") is None

    async def test_rollback_that_nobody_adopts_ends_as_an_orphan(self, registry: RunRegistry) -> None:
        await admit(registry, "r1", lease_seconds=0)
        await registry.cancel("r1", action="rollback")
        assert await registry.sweep(adoption_seconds=LONG) == []
        assert (await swept(registry, "r1")).orphaned
        assert (await run_of(registry, "r1")).status == "error"

    async def test_replica_that_leaves_releases_what_waits(self, registry: RunRegistry, peer: RunRegistry) -> None:
        running = await admit(registry, "r1", assistant_id="a")
        waiting = await admit(registry, "r2", assistant_id="a")
        nameless = await admit(registry, "r3")
        other = await admit(peer, "r4", owner="two", assistant_id="a")
        assert await registry.release([]) == []
        assert await registry.release([running.lease, waiting.lease, nameless.lease]) == ["r2"]
        assert await registry.start(waiting.lease, lease_seconds=LONG) is None
        held = [running.lease, waiting.lease, nameless.lease, other.lease]
        assert set(await registry.renew(held, lease_seconds=LONG)) == {"r1", "r3", "r4"}
        heir = await adopted(peer, "r2", "two")
        await registry.finish(running.lease, rules.succeeded(None, {}))
        assert await peer.start(heir.lease, lease_seconds=LONG) == "running"

    # Later

    async def test_run_for_later_waits_for_its_time(self, registry: RunRegistry) -> None:
        async def waits(seconds: float) -> bool:
            name = f"later-{seconds}"
            later = await admit(registry, name, name, after_seconds=seconds)
            assert later.record.status == "pending"
            assert (await thread_of(registry, name)).status == "busy"
            is_early = await registry.start(later.lease, lease_seconds=LONG) == "pending"
            for _ in range(1000):
                if await registry.start(later.lease, lease_seconds=LONG) == "running":
                    return is_early
                await asyncio.sleep(0.01)  # by the server's clock
            raise AssertionError("its time never came")

        assert await for_one_of((0.3, 5.0), waits)

    async def test_run_for_later_lets_others_pass(self, registry: RunRegistry) -> None:
        later = await admit(registry, "r1", after_seconds=LONG)
        now = await admit(registry, "r2")
        assert now.record.status == "running"
        after = await admit(registry, "r3", owner="two")
        assert await registry.finish(now.lease, rules.succeeded(None, {})) == Ended("t", Waiting("r3", "two"))
        assert await registry.start(after.lease, lease_seconds=LONG) == "running"
        assert await registry.start(later.lease, lease_seconds=LONG) == "pending"
        assert await registry.finish(after.lease, rules.succeeded(None, {})) == Ended("t", None)
        assert (await thread_of(registry)).status == "busy"
