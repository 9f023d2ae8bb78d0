"""Runs come in line, and begin in order."""

from __future__ import annotations

import asyncio

import pytest

from ..errors import RunConflictError
from ..runs.registry import rules
from ..runs.registry.base import RunRegistry
from ..runs.registry.records import Lease
from ._runs_common import LONG, RunRegistryFixtures, admit, run_of, thread_of


class AdmissionContract(RunRegistryFixtures):
    async def test_first_run_begins_at_once_and_makes_the_thread_busy(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1", user_id="u", thread_metadata={"graph_id": "agent"})
        assert admitted.record.status == "running"
        assert admitted.lease == Lease("r1", "one", 1)
        assert await registry.get("r1") == admitted.record
        thread = await thread_of(registry)
        assert (thread.status, thread.user_id, thread.metadata) == ("busy", "u", {"graph_id": "agent"})

    async def test_row_keeps_what_it_was_given(self, registry: RunRegistry) -> None:
        kwargs = {"input": {"text": "nul \x00 and é", "n": [1, 2.5, None, True]}, "config": {}}
        admitted = await admit(registry, "r1", assistant_id="a", metadata={"k": {"deep": [1]}}, kwargs=kwargs)
        record = await registry.get("r1")
        assert record == admitted.record
        assert record is not None
        assert (record.kwargs, record.metadata, record.assistant_id) == (kwargs, {"k": {"deep": [1]}}, "a")
        assert record.created_at.utcoffset() is not None

    async def test_rows_are_detached(self, registry: RunRegistry) -> None:
        metadata = {"k": [1]}
        await admit(registry, "r1", metadata=metadata)
        metadata["k"].append(2)
        record = await run_of(registry, "r1")
        assert record.metadata == {"k": [1]}

    async def test_reject_on_a_busy_thread_stores_nothing(self, registry: RunRegistry) -> None:
        await admit(registry, "r1")
        with pytest.raises(RunConflictError):
            await admit(registry, "r2", multitask_strategy="reject", thread_metadata={"no": 1})
        assert await registry.get("r2") is None
        thread = await thread_of(registry)
        assert thread.metadata == {}

    async def test_of_many_rejecting_at_once_one_is_accepted(self, registry: RunRegistry, peer: RunRegistry) -> None:
        async def attempt(number: int) -> bool:
            try:
                await admit((registry, peer)[number % 2], f"r{number}", multitask_strategy="reject")
            except RunConflictError:
                return False
            return True

        outcomes = await asyncio.gather(*(attempt(number) for number in range(30)))
        assert outcomes.count(True) == 1
        assert len(await registry.list("t", limit=100)) == 1

    async def test_runs_of_a_thread_begin_in_order_of_admission(self, registry: RunRegistry, peer: RunRegistry) -> None:
        first = await admit(registry, "r1")
        second = await admit(peer, "r2", owner="two")
        third = await admit(registry, "r3")
        assert [second.record.status, third.record.status] == ["pending", "pending"]
        assert await peer.start(second.lease, lease_seconds=LONG) == "pending"
        await registry.finish(first.lease, rules.succeeded(None, {}))
        assert await registry.start(third.lease, lease_seconds=LONG) == "pending"
        assert await peer.start(second.lease, lease_seconds=LONG) == "running"
        assert await registry.start(third.lease, lease_seconds=LONG) == "pending"
        await peer.finish(second.lease, rules.succeeded(None, {}))
        assert await registry.start(third.lease, lease_seconds=LONG) == "running"

    async def test_threads_do_not_wait_for_each_other(self, registry: RunRegistry) -> None:
        await admit(registry, "r1", "t1")
        assert (await admit(registry, "r2", "t2")).record.status == "running"

    async def test_run_id_is_used_once(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1")
        await registry.finish(admitted.lease, rules.succeeded(None, {}))
        with pytest.raises(RunConflictError):
            await admit(registry, "r1")
        thread = await thread_of(registry)
        assert thread.status == "idle"

    async def test_unknown_thread_is_created_only_when_asked(self, registry: RunRegistry) -> None:
        with pytest.raises(LookupError):
            await admit(registry, "r1", create_thread=False)
        assert await registry.get_thread("t") is None

    async def test_unknown_strategy_is_refused(self, registry: RunRegistry) -> None:
        with pytest.raises(ValueError, match="sometimes"):
            await admit(registry, "r1", multitask_strategy="sometimes")

    async def test_what_a_database_cannot_keep_is_refused(self, registry: RunRegistry) -> None:
        for ids in (("", "t"), ("r\0", "t"), ("r", "")):
            with pytest.raises(ValueError, match="_id"):
                await admit(registry, *ids)
        with pytest.raises(ValueError, match="NUL"):
            await admit(registry, "r1", thread_metadata={"k": ["\0"]})
        with pytest.raises(ValueError, match="NUL"):
            await registry.create_thread("t", metadata={"\0": 1})
        assert await registry.get_thread("t") is None
        assert await registry.create_thread("t", metadata={"k": "\\u0000 is six characters"}) is not None

    async def test_list_is_newest_first_paged_and_filtered(self, registry: RunRegistry) -> None:
        for number in range(4):
            await admit(registry, f"r{number}")
        await admit(registry, "other", "t2")
        assert [record.run_id for record in await registry.list("t")] == ["r3", "r2", "r1", "r0"]
        assert [record.run_id for record in await registry.list("t", limit=2, offset=1)] == ["r2", "r1"]
        assert [record.run_id for record in await registry.list("t", status="running")] == ["r0"]
        assert await registry.list("nobody") == ()
        for limit, offset in ((0, 0), (1001, 0), (1, -1)):
            with pytest.raises(ValueError, match="limit"):
                await registry.list("t", limit=limit, offset=offset)
