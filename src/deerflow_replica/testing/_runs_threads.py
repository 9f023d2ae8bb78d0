"""The rows of threads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ..errors import StoreUnavailableError
from ..runs.registry import rules
from ..runs.registry.base import RunRegistry
from ..runs.registry.records import RunOutcome
from ._runs_common import LONG, RunRegistryFixtures, admit, run_of, thread_of


class ThreadRowContract(RunRegistryFixtures):
    async def test_unfinished_runs_are_found_by_the_user_of_their_threads(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r1", "t1", user_id="u")
        await admit(registry, "r2", "t1", user_id="u")
        await admit(registry, "r3", "t2", user_id="u", hidden=True)
        await admit(registry, "r4", "t3")
        await admit(registry, "r5", "t4", user_id="v")
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

    async def test_many_threads_are_read_at_once(self, registry: RunRegistry) -> None:
        assert await registry.get_threads([]) == ()
        for thread_id in ("t1", "t2", "t3"):
            await registry.create_thread(thread_id, user_id="u", hidden=thread_id == "t2")
        found = await registry.get_threads(["t3", "t2", "unknown", "t1", "t3"])
        assert sorted(row.thread_id for row in found) == ["t1", "t3"]
        assert await registry.get_thread("t1") in found

    async def test_many_runs_are_read_at_once_with_whose_they_are(self, registry: RunRegistry) -> None:
        assert await registry.get_owned([]) == {}
        await admit(registry, "r1", "t1", user_id="u", kwargs={"a": 1})
        await admit(registry, "r2", "t2", hidden=True)
        undone = await admit(registry, "r3", "t3")
        await registry.roll_back(undone.lease)
        found = await registry.get_owned(["r2", "r1", "unknown", "r3", "r2"])
        whose = {run_id: (owned.user_id, owned.hidden) for run_id, owned in found.items()}
        assert whose == {"r1": ("u", False), "r2": (None, True)}
        assert [found[run_id].run for run_id in ("r1", "r2")] == [await registry.get(name) for name in ("r1", "r2")]

    @pytest.mark.anyio
    async def test_head_of_a_thread_is_what_its_row_says(self, registry: RunRegistry) -> None:
        assert await registry.get_thread_head("t") is None
        await admit(registry, "r1", user_id="u", hidden=True, thread_metadata={"a": {"b": 1}})
        head, row = await registry.get_thread_head("t"), await registry.get_thread("t")
        assert head is not None
        assert row is not None
        assert (head.thread_id, head.user_id, head.status) == ("t", "u", "busy")
        assert (head.hidden, head.metadata) == (row.hidden, row.metadata) == (True, {"a": {"b": 1}})

    async def test_thread_is_created_once(self, registry: RunRegistry) -> None:
        row = await registry.create_thread("t", user_id="u", metadata={"a": 1}, config={"tags": ["x"]})
        assert row is not None
        assert row == await registry.get_thread("t")
        assert (row.status, row.user_id, row.metadata, row.config) == ("idle", "u", {"a": 1}, {"tags": ["x"]})
        assert await registry.create_thread("t", user_id="v", metadata={"a": 2}) is None
        assert await registry.get_thread("t") == row

    async def test_update_merges_top_level_keys(self, registry: RunRegistry) -> None:
        await registry.create_thread("t", metadata={"a": 1, "b": {"x": 1}})
        row = await registry.update_thread("t", metadata={"b": {"y": 2}, "c": None}, config={"k": 1})
        assert row is not None
        assert (row.metadata, row.config) == ({"a": 1, "b": {"y": 2}, "c": None}, {"k": 1})
        assert row.updated_at >= row.created_at
        assert await registry.update_thread("unknown", metadata={"a": 1}) is None

    async def test_concurrent_merges_all_survive(self, registry: RunRegistry, peer: RunRegistry) -> None:
        await registry.create_thread("t")
        await asyncio.gather(
            *((registry, peer)[number % 2].update_thread("t", metadata={f"k{number}": number}) for number in range(10))
        )
        row = await registry.get_thread("t")
        assert row is not None
        assert row.metadata == {f"k{number}": number for number in range(10)}

    async def test_thread_goes_with_its_runs_when_all_are_closed(self, registry: RunRegistry) -> None:
        admitted = await admit(registry, "r1")
        assert not await registry.delete_thread("t")
        await registry.finish(admitted.lease, rules.cancelled())
        assert not await registry.delete_thread("t")
        await registry.close_run("r1")
        assert await registry.delete_thread("t")
        assert not await registry.delete_thread("t")
        assert await registry.get("r1") is None
        assert await registry.get_thread("t") is None
        assert (await admit(registry, "r1")).record.status == "running"

    async def test_run_that_is_admitted_at_the_last_moment_keeps_its_thread(
        self, registry: RunRegistry, peer: RunRegistry
    ) -> None:
        for number in range(10):
            await registry.create_thread(f"t{number}")
        admissions = [admit(peer, f"r{number}", f"t{number}") for number in range(10)]
        deletions = [registry.delete_thread(f"t{number}") for number in range(10)]
        await asyncio.gather(*(task for pair in zip(admissions, deletions, strict=True) for task in pair))
        assert all([(await run_of(peer, f"r{number}")).status == "running" for number in range(10)])

    async def test_idle_thread_takes_what_others_leave_in_it(self, registry: RunRegistry) -> None:
        assert not await registry.settle_thread("t", rules.succeeded({"x": 1}, {}))
        running = await admit(registry, "r1")
        assert not await registry.settle_thread("t", rules.succeeded({"x": 1}, {}))
        await registry.finish(running.lease, rules.failed({"error": "E", "message": ""}))
        assert await registry.settle_thread("t", rules.succeeded({"x": 1}, {}))
        thread = await thread_of(registry)
        assert (thread.status, thread.values, thread.error) == ("idle", {"x": 1}, None)
        rolled_back = await admit(registry, "r2")
        await registry.roll_back(rolled_back.lease)
        assert (await thread_of(registry)).status == "idle"

    async def test_idle_thread_takes_nothing_of_a_state_that_is_past(self, registry: RunRegistry) -> None:
        running = await admit(registry, "r1")
        await registry.finish(running.lease, rules.succeeded({"x": 1}, {}))
        seen = (await thread_of(registry)).state_updated_at
        assert await registry.settle_thread("t", rules.succeeded({"x": 2}, {}), if_state_of=seen)
        assert not await registry.settle_thread("t", rules.succeeded({"x": 3}, {}), if_state_of=seen)
        assert (await thread_of(registry)).values == {"x": 2}

    async def test_thread_expires_some_time_after_its_last_run(self, registry: RunRegistry) -> None:
        first = await admit(registry, "r1", keep_seconds=0)
        await registry.create_thread("for ever")
        assert await registry.expired_threads() == []
        second = await admit(registry, "r2")
        await registry.finish(first.lease, rules.succeeded(None, {}))
        assert await registry.expired_threads() == []
        await registry.cancel("r2")
        assert await registry.expired_threads() == ["t"]
        third = await admit(registry, "r3")
        assert await registry.expired_threads() == []
        await registry.finish(third.lease, rules.cancelled())
        assert await registry.expired_threads() == ["t"]
        assert second.record.thread_id == "t"
        kept = await admit(registry, "r4", "t2", keep_seconds=LONG)
        await registry.finish(kept.lease, rules.cancelled())
        assert await registry.expired_threads() == ["t"]

    async def test_search_filters_orders_and_counts(self, registry: RunRegistry) -> None:
        for name, user_id in (("a", None), ("b", "u"), ("c", None)):
            await registry.create_thread(name, user_id=user_id, metadata={"name": name, "tags": ["x", name]})
        await registry.create_thread("hidden", hidden=True)
        await admit(registry, "r1", "c")

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

    async def test_closed_registry_refuses(self, registry: RunRegistry) -> None:
        await registry.close()
        await registry.close()
        with pytest.raises(StoreUnavailableError):
            await registry.get("r1")
