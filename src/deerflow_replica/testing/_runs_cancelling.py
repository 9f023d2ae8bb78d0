"""Runs that are asked to end, or never to have been."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ..errors import RunConflictError
from ..runs.registry import rules
from ..runs.registry.base import RunRegistry
from ..runs.registry.records import CancelAction, Cancelled, Ended, Lease, RunOutcome, Unclosed, Waiting
from ._runs_common import LONG, RunRegistryFixtures, admit, run_of, swept, thread_of

ACTIONS: tuple[CancelAction, ...] = ("interrupt", "rollback")


class CancelContract(RunRegistryFixtures):
    async def test_pending_run_is_cancelled_at_once(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r1")
        waiting = await admit(registry, "r2")
        assert await registry.cancel("r2")
        assert not await registry.cancel("r2")
        assert await registry.start(waiting.lease, lease_seconds=LONG) == "interrupted"
        thread = await thread_of(registry)
        assert thread.status == "busy"
        await registry.finish(first.lease, rules.succeeded(None, {}))
        record = await run_of(registry, "r2")
        assert record.status == "interrupted"

    async def test_running_run_is_asked_through_its_lease(self, registry: RunRegistry, peer: RunRegistry) -> None:
        admitted = await admit(registry, "r1")
        assert await peer.cancel("r1")
        record = await run_of(registry, "r1")
        assert record.status == "running"
        assert await registry.renew([admitted.lease], lease_seconds=LONG) == {"r1": "interrupt"}

    async def test_nothing_to_cancel(self, registry: RunRegistry) -> None:
        for action in ACTIONS:
            assert not await registry.cancel("unknown", action=action)
            admitted = await admit(registry, action)
            await registry.finish(admitted.lease, rules.succeeded(None, {}))
            assert not await registry.cancel(action, action=action)
        unknown: Any = "sometimes"
        with pytest.raises(ValueError, match="sometimes"):
            await registry.cancel("r1", action=unknown)

    async def test_listener_is_told_whom_to_hint(self, registry: RunRegistry) -> None:
        told: list[Cancelled] = []

        async def listen(cancelled: Cancelled) -> None:
            told.append(cancelled)

        registry.on_cancel(listen)
        await admit(registry, "r1")
        await admit(registry, "r2", owner="two", start=False)
        await registry.cancel("r2")
        await registry.cancel("r1", action="rollback")
        assert told == [
            Cancelled("r2", "t", "two", "interrupt", ended=True),
            Cancelled("r1", "t", "one", "rollback", ended=False),
        ]

    @pytest.mark.parametrize("first", ["interrupt", "rollback"])
    async def test_rollback_is_stronger_whichever_is_asked_first(self, registry: RunRegistry, first: Any) -> None:
        admitted = await admit(registry, "r1")
        await registry.cancel("r1", action=first)
        await registry.cancel("r1", action="interrupt" if first == "rollback" else "rollback")
        assert await registry.renew([admitted.lease], lease_seconds=LONG) == {"r1": "rollback"}

    # Rollback

    @pytest.mark.parametrize(
        "before",
        [
            rules.succeeded({"x": 1}, {}),
            rules.succeeded({"x": 1}, {"task": [{"value": "?", "id": "i"}]}),
            rules.failed({"error": "ValueError", "message": "no"}),
        ],
        ids=["idle", "interrupted", "failed"],
    )
    async def test_rolled_back_run_leaves_its_thread_as_it_was(self, registry: RunRegistry, before: RunOutcome) -> None:
        first = await admit(registry, "r1", thread_metadata={"graph_id": "a", "kept": 1})
        await registry.finish(first.lease, before)
        thread = await thread_of(registry)
        second = await admit(registry, "r2", thread_metadata={"graph_id": "b", "kept": 1, "new": [2]})
        await registry.cancel("r2", action="rollback")
        assert await registry.finish(second.lease, rules.succeeded({"x": 2}, {})) is None
        assert (await run_of(registry, "r2")).status == "running"
        assert await registry.roll_back(second.lease) == Ended("t", None)
        assert replace(await thread_of(registry), updated_at=thread.updated_at) == thread

    async def test_rollback_leaves_what_was_said_of_the_thread_meanwhile(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r1", thread_metadata={"graph_id": "a", "said": 1})
        await registry.finish(first.lease, rules.succeeded(None, {}))
        second = await admit(registry, "r2", thread_metadata={"graph_id": "b", "said": 2})
        await registry.update_thread("t", metadata={"said": 3, "more": 4})
        third = await admit(registry, "r3", multitask_strategy="rollback", thread_metadata={"graph_id": "c"})
        await registry.roll_back(second.lease)
        assert (await thread_of(registry)).metadata == {"graph_id": "c", "said": 3, "more": 4}
        assert await registry.start(third.lease, lease_seconds=LONG) == "running"

    async def test_nobody_finds_a_run_that_was_rolled_back(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1", user_id="u")
        await registry.cancel("r1", action="rollback")
        assert await registry.roll_back(admitted.lease)
        assert await registry.roll_back(admitted.lease) is None
        assert await registry.get("r1") is None
        assert await registry.list("t") == ()
        assert await registry.unfinished(user_id="u") == ()
        assert (await thread_of(registry)).status == "idle"
        await registry.close_run("r1")
        assert (await admit(registry, "r1")).record.status == "running"

    async def test_stream_of_a_run_that_was_rolled_back_still_gets_its_end(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1", lease_seconds=0.3)
        await registry.cancel("r1", action="rollback")
        await registry.roll_back(admitted.lease)
        assert await swept(registry, "r1") == Unclosed("r1", "t", "interrupted", None, orphaned=False)

    async def test_rollback_is_fenced(self, registry: RunRegistry) -> None:
        await admit(registry, "r1")
        waiting = await admit(registry, "r2")
        for lease in (Lease("r1", "two", 1), Lease("r1", "one", 2), Lease("r0", "one", 1), waiting.lease):
            assert await registry.roll_back(lease) is None
        assert [run.status for run in await registry.list("t")] == ["pending", "running"]

    async def test_pending_run_is_rolled_back_at_once(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r1")
        waiting = await admit(registry, "r2")
        assert await registry.cancel("r2", action="rollback")
        assert await registry.get("r2") is None
        assert await registry.start(waiting.lease, lease_seconds=LONG) == "interrupted"
        assert (await thread_of(registry)).status == "busy"
        await registry.close_run("r2")
        assert await registry.start(waiting.lease, lease_seconds=LONG) is None
        await registry.finish(first.lease, rules.succeeded({"x": 1}, {}))
        assert (await thread_of(registry)).status == "idle"

    async def test_cancelled_pending_run_changes_nothing_of_a_busy_thread(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r0")
        await registry.finish(first.lease, rules.failed({"error": "E", "message": ""}))
        running = await admit(registry, "r1")
        await admit(registry, "r2")
        before = await thread_of(registry)
        await registry.cancel("r2")
        assert await thread_of(registry) == before
        await registry.cancel("r1", action="rollback")
        await registry.roll_back(running.lease)
        after = await thread_of(registry)
        assert (after.status, after.error) == ("error", {"error": "E", "message": ""})

    async def test_cancelled_pending_run_that_is_alone_interrupts_its_thread(self, registry: RunRegistry) -> None:
        await admit(registry, "r1", start=False)
        await registry.cancel("r1")
        assert (await thread_of(registry)).status == "interrupted"

    # Strategies

    @pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
    async def test_strategy_ends_the_earlier_runs_of_its_thread(self, registry: RunRegistry, strategy: Any) -> None:
        running = await admit(registry, "r1")
        await admit(registry, "r2", owner="two")
        other = await admit(registry, "other", "t2")
        new = await admit(registry, "r3", owner="three", multitask_strategy=strategy)
        assert new.record.status == "pending"
        assert new.cancelled == (
            Cancelled("r1", "t", "one", strategy, ended=False),
            Cancelled("r2", "t", "two", strategy, ended=True),
        )
        renewed = await registry.renew([running.lease, other.lease], lease_seconds=LONG)
        assert renewed == {"r1": strategy, "other": None}
        pending = await registry.get("r2")
        assert (pending and pending.status) == ("interrupted" if strategy == "interrupt" else None)
        assert await registry.start(new.lease, lease_seconds=LONG) == "pending"
        end = registry.roll_back(running.lease) if strategy == "rollback" else None
        ended = await (end or registry.finish(running.lease, rules.cancelled()))
        assert ended == Ended("t", Waiting("r3", "three"))
        assert await registry.start(new.lease, lease_seconds=LONG) == "running"

    @pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
    async def test_strategy_begins_at_once_when_nothing_runs(self, registry: RunRegistry, strategy: Any) -> None:
        await admit(registry, "r1", start=False)
        assert (await admit(registry, "r2", multitask_strategy=strategy)).record.status == "running"
        assert (await admit(registry, "r3", "t2", multitask_strategy=strategy)).cancelled == ()

    async def test_refused_run_interrupts_nobody(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1")
        with pytest.raises(RunConflictError):
            await admit(registry, "r1", multitask_strategy="interrupt")
        assert await registry.renew([admitted.lease], lease_seconds=LONG) == {"r1": None}
