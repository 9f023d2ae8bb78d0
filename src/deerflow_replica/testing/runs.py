"""What every run registry must do. Subclass it and give it your registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ..errors import RunConflictError, StoreUnavailableError
from ..runs.registry import rules
from ..runs.registry.base import RunRegistry
from ..runs.registry.records import Admission, Lease, NewRun, RunOutcome, Unclosed

LONG = 60.0  # a lease that no test outlives
SHORT = 0.05

Build = Callable[[], RunRegistry]


class RunRegistryContract:
    """Provide the fixture `build`: a function that makes one more replica's registry, each on the same new rows."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def build(self) -> Build:
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
        self, registry: RunRegistry, run_id: str, thread_id: str = "t", *, lease_seconds: float = LONG, **fields: Any
    ) -> Admission:
        run = NewRun(run_id=run_id, thread_id=thread_id, **{"owner": "one", **fields})
        return await registry.admit(run, lease_seconds=lease_seconds)

    async def swept(self, registry: RunRegistry, run_id: str) -> Unclosed:
        """Sweep until the run is named."""
        for _ in range(1000):
            for unclosed in await registry.sweep():
                if unclosed.run_id == run_id:
                    return unclosed
            await asyncio.sleep(0.01)  # leases lapse by the server's clock: there is nothing to wait for but time
        raise AssertionError(f"{run_id} was never named")

    # Admission and order

    @pytest.mark.anyio
    async def test_first_run_begins_at_once_and_makes_the_thread_busy(self, registry: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1", user_id="u", thread_metadata={"graph_id": "agent"})
        assert admitted.record.status == "running"
        assert admitted.lease == Lease("r1", "one", 1)
        assert await registry.get("r1") == admitted.record
        thread = await registry.get_thread("t")
        assert thread is not None
        assert (thread.status, thread.user_id, thread.metadata) == ("busy", "u", {"graph_id": "agent"})

    @pytest.mark.anyio
    async def test_row_keeps_what_it_was_given(self, registry: RunRegistry) -> None:
        kwargs = {"input": {"text": "nul \x00 and é", "n": [1, 2.5, None, True]}, "config": {}}
        admitted = await self.admit(registry, "r1", assistant_id="a", metadata={"k": {"deep": [1]}}, kwargs=kwargs)
        record = await registry.get("r1")
        assert record == admitted.record
        assert record is not None
        assert (record.kwargs, record.metadata, record.assistant_id) == (kwargs, {"k": {"deep": [1]}}, "a")
        assert record.created_at.utcoffset() is not None

    @pytest.mark.anyio
    async def test_rows_are_detached(self, registry: RunRegistry) -> None:
        metadata = {"k": [1]}
        await self.admit(registry, "r1", metadata=metadata)
        metadata["k"].append(2)
        record = await registry.get("r1")
        assert record is not None
        assert record.metadata == {"k": [1]}

    @pytest.mark.anyio
    async def test_reject_on_a_busy_thread_stores_nothing(self, registry: RunRegistry) -> None:
        await self.admit(registry, "r1")
        with pytest.raises(RunConflictError):
            await self.admit(registry, "r2", multitask_strategy="reject", thread_metadata={"no": 1})
        assert await registry.get("r2") is None
        thread = await registry.get_thread("t")
        assert thread is not None
        assert thread.metadata == {}

    @pytest.mark.anyio
    async def test_of_many_rejecting_at_once_one_is_accepted(self, registry: RunRegistry, peer: RunRegistry) -> None:
        async def attempt(number: int) -> bool:
            try:
                await self.admit((registry, peer)[number % 2], f"r{number}", multitask_strategy="reject")
            except RunConflictError:
                return False
            return True

        outcomes = await asyncio.gather(*(attempt(number) for number in range(30)))
        assert outcomes.count(True) == 1
        assert len(await registry.list("t", limit=100)) == 1

    @pytest.mark.anyio
    async def test_runs_of_a_thread_begin_in_order_of_admission(self, registry: RunRegistry, peer: RunRegistry) -> None:
        first = await self.admit(registry, "r1")
        second = await self.admit(peer, "r2", owner="two")
        third = await self.admit(registry, "r3")
        assert [second.record.status, third.record.status] == ["pending", "pending"]
        assert await peer.start(second.lease, lease_seconds=LONG) == "pending"
        await registry.finish(first.lease, rules.succeeded(None, {}))
        assert await registry.start(third.lease, lease_seconds=LONG) == "pending"
        assert await peer.start(second.lease, lease_seconds=LONG) == "running"
        assert await registry.start(third.lease, lease_seconds=LONG) == "pending"
        await peer.finish(second.lease, rules.succeeded(None, {}))
        assert await registry.start(third.lease, lease_seconds=LONG) == "running"

    @pytest.mark.anyio
    async def test_threads_do_not_wait_for_each_other(self, registry: RunRegistry) -> None:
        await self.admit(registry, "r1", "t1")
        assert (await self.admit(registry, "r2", "t2")).record.status == "running"

    @pytest.mark.anyio
    async def test_run_id_is_used_once(self, registry: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1")
        await registry.finish(admitted.lease, rules.succeeded(None, {}))
        with pytest.raises(RunConflictError):
            await self.admit(registry, "r1")
        thread = await registry.get_thread("t")
        assert thread is not None
        assert thread.status == "idle"

    @pytest.mark.anyio
    async def test_unknown_thread_is_created_only_when_asked(self, registry: RunRegistry) -> None:
        with pytest.raises(LookupError):
            await self.admit(registry, "r1", create_thread=False)
        assert await registry.get_thread("t") is None

    @pytest.mark.anyio
    @pytest.mark.parametrize("strategy", ["interrupt", "rollback", "sometimes"])
    async def test_strategy_that_is_not_there_is_refused(self, registry: RunRegistry, strategy: Any) -> None:
        with pytest.raises(ValueError, match=strategy):
            await self.admit(registry, "r1", multitask_strategy=strategy)

    @pytest.mark.anyio
    async def test_what_a_database_cannot_keep_is_refused(self, registry: RunRegistry) -> None:
        for ids in (("", "t"), ("r\0", "t"), ("r", "")):
            with pytest.raises(ValueError, match="_id"):
                await self.admit(registry, *ids)
        with pytest.raises(ValueError, match="NUL"):
            await self.admit(registry, "r1", thread_metadata={"k": ["\0"]})
        with pytest.raises(ValueError, match="NUL"):
            await registry.create_thread("t", metadata={"\0": 1})
        assert await registry.get_thread("t") is None
        assert await registry.create_thread("t", metadata={"k": "\\u0000 is six characters"}) is not None

    # The end of a run

    @pytest.mark.anyio
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
        admitted = await self.admit(registry, "r1")
        assert await registry.finish(admitted.lease, outcome)
        record, thread = await registry.get("r1"), await registry.get_thread("t")
        assert record is not None
        assert thread is not None
        assert (record.status, record.error) == (outcome.status, outcome.error)
        assert (thread.status, thread.error, thread.values) == (thread_status, outcome.error, outcome.values)
        assert thread.interrupts == outcome.interrupts

    @pytest.mark.anyio
    async def test_thread_stays_busy_while_a_run_waits(self, registry: RunRegistry) -> None:
        first = await self.admit(registry, "r1")
        await self.admit(registry, "r2")
        await registry.finish(first.lease, rules.failed({"error": "E", "message": ""}))
        thread = await registry.get_thread("t")
        assert thread is not None
        assert thread.status == "busy"

    @pytest.mark.anyio
    async def test_values_stay_when_a_run_leaves_none(self, registry: RunRegistry) -> None:
        first = await self.admit(registry, "r1")
        await registry.finish(first.lease, rules.succeeded({"x": 1}, {}))
        second = await self.admit(registry, "r2")
        await registry.finish(second.lease, rules.cancelled())
        thread = await registry.get_thread("t")
        assert thread is not None
        assert thread.values == {"x": 1}

    @pytest.mark.anyio
    async def test_run_ends_once(self, registry: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1")
        assert await registry.finish(admitted.lease, rules.succeeded(None, {}))
        assert not await registry.finish(admitted.lease, rules.cancelled())
        record = await registry.get("r1")
        assert record is not None
        assert record.status == "success"

    @pytest.mark.anyio
    async def test_no_write_under_another_owner_or_fence(self, registry: RunRegistry) -> None:
        await self.admit(registry, "r1")
        for lease in (Lease("r1", "two", 1), Lease("r1", "one", 2), Lease("r0", "one", 1)):
            assert not await registry.finish(lease, rules.cancelled())
            assert await registry.start(lease, lease_seconds=LONG) is None
            assert await registry.renew([lease], lease_seconds=LONG) == {}
        record = await registry.get("r1")
        assert record is not None
        assert record.status == "running"

    @pytest.mark.anyio
    async def test_delete_takes_only_what_is_over(self, registry: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1")
        assert not await registry.delete("r1")
        await registry.finish(admitted.lease, rules.cancelled())
        assert await registry.delete("r1")
        assert not await registry.delete("r1")
        assert await registry.get("r1") is None

    # Leases and sweep

    @pytest.mark.anyio
    async def test_renewal_answers_for_all_held_runs_at_once(self, registry: RunRegistry) -> None:
        leases = [(await self.admit(registry, f"r{number}", f"t{number}")).lease for number in range(3)]
        assert await registry.cancel("r1")
        renewed = await registry.renew([*leases, Lease("gone", "one", 1)], lease_seconds=LONG)
        assert renewed == {"r0": None, "r1": "interrupt", "r2": None}
        assert await registry.renew([], lease_seconds=LONG) == {}

    @pytest.mark.anyio
    async def test_renewed_lease_does_not_lapse(self, registry: RunRegistry) -> None:
        lapsing = await self.admit(registry, "r1", "t1", lease_seconds=0.5)
        await self.admit(registry, "r2", "t2", lease_seconds=0.5)
        assert await registry.renew([lapsing.lease], lease_seconds=LONG) == {"r1": None}
        await self.swept(registry, "r2")
        record = await registry.get("r1")
        assert record is not None
        assert record.status == "running"

    @pytest.mark.anyio
    async def test_lapsed_run_ends_as_an_orphan_and_fences_its_executor(
        self, registry: RunRegistry, peer: RunRegistry
    ) -> None:
        admitted = await self.admit(registry, "r1", lease_seconds=SHORT)
        unclosed = await self.swept(peer, "r1")
        assert (unclosed.orphaned, unclosed.status, unclosed.error) == (True, "error", rules.ORPHANED)
        assert await registry.renew([admitted.lease], lease_seconds=LONG) == {}
        assert not await registry.finish(admitted.lease, rules.succeeded({"late": 1}, {}))
        record, thread = await registry.get("r1"), await registry.get_thread("t")
        assert record is not None
        assert thread is not None
        assert (record.status, record.error) == ("error", rules.ORPHANED)
        assert (thread.status, thread.error, thread.values) == ("error", rules.ORPHANED, None)
        assert (await self.admit(peer, "r2", owner="two")).record.status == "running"

    @pytest.mark.anyio
    async def test_lapsed_lease_is_not_prolonged(self, registry: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1", lease_seconds=0)
        assert await registry.renew([admitted.lease], lease_seconds=LONG) == {}

    @pytest.mark.anyio
    async def test_orphan_is_named_by_one_sweeper_and_not_again_when_closed(
        self, registry: RunRegistry, peer: RunRegistry
    ) -> None:
        await self.admit(registry, "r1", lease_seconds=0)
        sweeps = await asyncio.gather(*((registry, peer)[number % 2].sweep() for number in range(8)))
        named = [unclosed.run_id for sweep in sweeps for unclosed in sweep]
        if not named:  # each sweeper skipped what it saw another one work on
            named = [(await self.swept(registry, "r1")).run_id]
        assert named == ["r1"]
        await registry.close_run("r1")
        assert await peer.sweep() == []

    @pytest.mark.anyio
    async def test_finished_run_that_was_not_closed_is_named(self, registry: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1", lease_seconds=0.3)
        await registry.finish(admitted.lease, rules.succeeded({"x": 1}, {}))
        unclosed = await self.swept(registry, "r1")
        assert unclosed == Unclosed("r1", "t", "success", None, orphaned=False)
        record = await registry.get("r1")
        assert record is not None
        assert record.status == "success"

    @pytest.mark.anyio
    async def test_closed_run_is_never_named(self, registry: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1", "t1", lease_seconds=0)
        await registry.close_run("r1")  # not over: no effect
        assert (await self.swept(registry, "r1")).orphaned
        other = await self.admit(registry, "r2", "t2", lease_seconds=0)
        assert admitted.lease != other.lease
        await registry.finish(other.lease, rules.cancelled())
        await registry.close_run("r2")
        assert "r2" not in [unclosed.run_id for unclosed in await registry.sweep()]

    @pytest.mark.anyio
    async def test_waiting_run_of_a_lost_replica_ends_too(self, registry: RunRegistry) -> None:
        first = await self.admit(registry, "r1")
        waiting = await self.admit(registry, "r2", lease_seconds=SHORT)
        assert (await self.swept(registry, "r2")).orphaned
        assert await registry.start(waiting.lease, lease_seconds=LONG) is None
        await registry.finish(first.lease, rules.succeeded(None, {}))
        thread = await registry.get_thread("t")
        assert thread is not None
        assert thread.status == "idle"

    # Cancel

    @pytest.mark.anyio
    async def test_pending_run_is_cancelled_at_once(self, registry: RunRegistry) -> None:
        first = await self.admit(registry, "r1")
        waiting = await self.admit(registry, "r2")
        assert await registry.cancel("r2")
        assert not await registry.cancel("r2")
        assert await registry.start(waiting.lease, lease_seconds=LONG) == "interrupted"
        thread = await registry.get_thread("t")
        assert thread is not None
        assert thread.status == "busy"
        await registry.finish(first.lease, rules.succeeded(None, {}))
        record = await registry.get("r2")
        assert record is not None
        assert record.status == "interrupted"

    @pytest.mark.anyio
    async def test_running_run_is_asked_through_its_lease(self, registry: RunRegistry, peer: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1")
        assert await peer.cancel("r1")
        record = await registry.get("r1")
        assert record is not None
        assert record.status == "running"
        assert await registry.renew([admitted.lease], lease_seconds=LONG) == {"r1": "interrupt"}

    @pytest.mark.anyio
    async def test_nothing_to_cancel(self, registry: RunRegistry) -> None:
        assert not await registry.cancel("unknown")
        admitted = await self.admit(registry, "r1")
        await registry.finish(admitted.lease, rules.succeeded(None, {}))
        assert not await registry.cancel("r1")
        with pytest.raises(ValueError, match="rollback"):
            await registry.cancel("r1", action="rollback")

    # Reading

    @pytest.mark.anyio
    async def test_list_is_newest_first_paged_and_filtered(self, registry: RunRegistry) -> None:
        for number in range(4):
            await self.admit(registry, f"r{number}")
        await self.admit(registry, "other", "t2")
        assert [record.run_id for record in await registry.list("t")] == ["r3", "r2", "r1", "r0"]
        assert [record.run_id for record in await registry.list("t", limit=2, offset=1)] == ["r2", "r1"]
        assert [record.run_id for record in await registry.list("t", status="running")] == ["r0"]
        assert await registry.list("nobody") == ()
        for limit, offset in ((0, 0), (1001, 0), (1, -1)):
            with pytest.raises(ValueError, match="limit"):
                await registry.list("t", limit=limit, offset=offset)

    # Threads

    @pytest.mark.anyio
    async def test_unfinished_runs_are_found_by_the_user_of_their_threads(self, registry: RunRegistry) -> None:
        first = await self.admit(registry, "r1", "t1", user_id="u")
        await self.admit(registry, "r2", "t1", user_id="u")
        await self.admit(registry, "r3", "t2", user_id="u", hidden=True)
        await self.admit(registry, "r4", "t3")
        await self.admit(registry, "r5", "t4", user_id="v")
        found = await registry.unfinished(user_id="u")
        assert [(run.run_id, run.thread_id, run.hidden) for run in found] == [
            ("r3", "t2", True),
            ("r2", "t1", False),
            ("r1", "t1", False),
        ]
        assert [run.run_id for run in await registry.unfinished(user_id="u", status="pending")] == ["r2"]
        assert [run.run_id for run in await registry.unfinished(user_id=None)] == ["r4"]
        await registry.finish(first.lease, RunOutcome("success", "idle"))
        assert [run.run_id for run in await registry.unfinished(user_id="u")] == ["r3", "r2"]
        with pytest.raises(ValueError, match="status"):
            await registry.unfinished(user_id="u", status="success")

    @pytest.mark.anyio
    async def test_head_of_a_thread_is_what_its_row_says(self, registry: RunRegistry) -> None:
        assert await registry.get_thread_head("t") is None
        await self.admit(registry, "r1", user_id="u", hidden=True, thread_metadata={"a": {"b": 1}})
        head, row = await registry.get_thread_head("t"), await registry.get_thread("t")
        assert head is not None
        assert row is not None
        assert (head.thread_id, head.user_id, head.status) == ("t", "u", "busy")
        assert (head.hidden, head.metadata) == (row.hidden, row.metadata) == (True, {"a": {"b": 1}})

    @pytest.mark.anyio
    async def test_thread_is_created_once(self, registry: RunRegistry) -> None:
        row = await registry.create_thread("t", user_id="u", metadata={"a": 1}, config={"tags": ["x"]})
        assert row is not None
        assert row == await registry.get_thread("t")
        assert (row.status, row.user_id, row.metadata, row.config) == ("idle", "u", {"a": 1}, {"tags": ["x"]})
        assert await registry.create_thread("t", user_id="v", metadata={"a": 2}) is None
        assert await registry.get_thread("t") == row

    @pytest.mark.anyio
    async def test_update_merges_top_level_keys(self, registry: RunRegistry) -> None:
        await registry.create_thread("t", metadata={"a": 1, "b": {"x": 1}})
        row = await registry.update_thread("t", metadata={"b": {"y": 2}, "c": None}, config={"k": 1})
        assert row is not None
        assert (row.metadata, row.config) == ({"a": 1, "b": {"y": 2}, "c": None}, {"k": 1})
        assert row.updated_at >= row.created_at
        assert await registry.update_thread("unknown", metadata={"a": 1}) is None

    @pytest.mark.anyio
    async def test_concurrent_merges_all_survive(self, registry: RunRegistry, peer: RunRegistry) -> None:
        await registry.create_thread("t")
        await asyncio.gather(
            *((registry, peer)[number % 2].update_thread("t", metadata={f"k{number}": number}) for number in range(10))
        )
        row = await registry.get_thread("t")
        assert row is not None
        assert row.metadata == {f"k{number}": number for number in range(10)}

    @pytest.mark.anyio
    async def test_deleted_thread_takes_its_runs(self, registry: RunRegistry) -> None:
        admitted = await self.admit(registry, "r1")
        assert await registry.delete_thread("t")
        assert not await registry.delete_thread("t")
        assert await registry.get("r1") is None
        assert not await registry.finish(admitted.lease, rules.cancelled())

    @pytest.mark.anyio
    async def test_search_filters_orders_and_counts(self, registry: RunRegistry) -> None:
        for name, user_id in (("a", None), ("b", "u"), ("c", None)):
            await registry.create_thread(name, user_id=user_id, metadata={"name": name, "tags": ["x", name]})
        await registry.create_thread("hidden", hidden=True)
        await self.admit(registry, "r1", "c")

        async def found(**filters: Any) -> list[str]:
            rows = await registry.search_threads(**filters)
            assert await registry.count_threads(
                **{name: value for name, value in filters.items() if name in ("ids", "unowned", "status", "metadata")}
            ) >= len(rows)
            return [row.thread_id for row in rows]

        assert await found() == ["c", "b", "a"]
        assert await found(sort_order="asc") == ["a", "b", "c"]
        assert await found(sort_by="thread_id", sort_order="asc") == ["a", "b", "c"]
        assert await found(sort_by="status", sort_order="asc") == ["c", "a", "b"]
        assert await found(unowned=True) == ["c", "a"]
        assert await found(ids=["b", "c", "nobody"], limit=1, offset=1) == ["b"]
        assert await found(ids=[]) == []
        assert await found(status="busy") == ["c"]
        assert await found(metadata={"name": "b"}) == ["b"]
        assert await found(metadata={"tags": ["x"]}, sort_order="asc") == ["a", "b", "c"]
        assert await registry.count_threads(unowned=True) == 2

    @pytest.mark.anyio
    async def test_closed_registry_refuses(self, registry: RunRegistry) -> None:
        await registry.close()
        await registry.close()
        with pytest.raises(StoreUnavailableError):
            await registry.get("r1")
