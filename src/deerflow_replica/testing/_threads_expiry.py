"""Expiry and sweeps."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from ..threads.base import ThreadMap
from ..threads.values import SortOrder
from ._threads_common import Build, ThreadMapFixtures, claimed, until, walked


async def _expired(threads: ThreadMap, thread_id: str) -> None:
    async def is_gone() -> bool:
        return await threads.owner_of(thread_id) is None

    await until(is_gone)


class ExpiryContract(ThreadMapFixtures):
    async def test_a_thread_expires(self, threads: ThreadMap) -> None:
        record = await claimed(threads, "t", "ann", ttl_seconds=0.2, metadata={"a": 1})
        assert record.expires_at == record.created_at + timedelta(seconds=0.2)
        await _expired(threads, "t")
        assert await threads.get("t", user_id="ann") is None
        assert await threads.update("t", user_id="ann") is None
        assert await threads.delete("t", user_id="ann") is False
        assert await threads.count("ann") == 0
        assert (await threads.list("ann")).items == ()
        assert await threads.check_access("t", "ann") is False
        assert await threads.check_access("t", "ann", require_existing=False) is True
        for stranger in ("bob", None):
            assert await threads.check_access("t", stranger) is False
            assert await threads.check_access("t", stranger, require_existing=False) is False
        assert await threads.transfer("t", "ann", "bob") is False
        assert await threads.touch("t", user_id="ann") is False
        assert await threads.owners_of(["t"]) == {}
        assert (await threads.claim("t", "bob")).granted is False
        again = await claimed(threads, "t", "ann")
        assert (again.version, again.metadata, again.expires_at) == (1, {}, None)

    async def test_a_default_ttl(self, build: Build) -> None:
        async with build(ttl_seconds=100) as threads:
            defaulted = await claimed(threads, "t", "ann")
            assert defaulted.expires_at == defaulted.created_at + timedelta(seconds=100)
            assert (await claimed(threads, "for ever", "ann", ttl_seconds=None)).expires_at is None

    async def test_touching_renews(self, threads: ThreadMap) -> None:
        record = await claimed(threads, "t", "ann", ttl_seconds=100)
        kept = await threads.update("t", user_id="ann", status="x", touch=False)
        assert kept is not None
        assert kept.expires_at == record.expires_at
        renewed = await threads.update("t", user_id="ann")
        assert renewed is not None
        assert renewed.expires_at is not None
        assert record.expires_at is not None
        assert renewed.expires_at > record.expires_at
        longer = await threads.update("t", user_id="ann", ttl_seconds=1000, touch=False)
        assert longer is not None
        assert longer.expires_at is not None
        assert longer.expires_at > renewed.expires_at + timedelta(seconds=800)
        for_ever = await threads.update("t", user_id="ann", ttl_seconds=None)
        assert for_ever is not None
        assert for_ever.expires_at is None

    async def test_the_longest_ttl(self, threads: ThreadMap) -> None:
        assert (await claimed(threads, "t", "ann", ttl_seconds=1e300)).expires_at is not None

    async def test_a_busy_thread_does_not_expire(self, threads: ThreadMap) -> None:
        await threads.claim("busy", "ann", ttl_seconds=0.05, status="busy")
        await threads.claim("idle", "ann", ttl_seconds=0.05)
        await _expired(threads, "idle")
        assert await threads.owner_of("busy") == "ann"
        assert await threads.count("ann") == 1
        assert await threads.sweep() == 1
        assert await threads.update("busy", user_id="ann", status="idle", touch=False) is not None
        assert await threads.owner_of("busy") is None

    async def test_a_thread_that_expired_is_deleted_as_of_then(self, build: Build) -> None:
        """Its tombstone ends when it would have ended, swept or not."""
        async with build(tombstone_seconds=0.1) as threads:
            await threads.claim_many(["t", "u"], "ann", ttl_seconds=0.05)
            await until(lambda: threads.check_access("t", "bob", require_existing=False))
            assert (await threads.claim("t", "bob")).created
            assert await threads.sweep() == 1
            assert await threads.count("bob") == 1
            assert await threads.check_access("u", None, require_existing=False)

    @pytest.mark.parametrize("order", ["desc", "asc"])
    async def test_pages_leave_out_what_has_expired(self, threads: ThreadMap, order: SortOrder) -> None:
        for number in range(12):
            await threads.claim(f"t{number:02}", "ann", ttl_seconds=0.02 if number % 3 else None)
        await _expired(threads, "t11")
        lasting = sorted((f"t{number:02}" for number in range(0, 12, 3)), reverse=order == "desc")
        for limit in (1, 2, 3, 4, 100):
            assert await walked(threads, "ann", limit=limit, sort_order=order) == lasting
        page = await threads.list("ann", limit=2, offset=1, sort_order=order)
        assert [record.thread_id for record in page.items] == lasting[1:3]
        assert await threads.count("ann") == 4
        assert await threads.sweep() == 8
        assert await walked(threads, "ann", limit=2, sort_order=order) == lasting

    @pytest.mark.parametrize("bad", [0, -1, 1001, True, 1.0, None], ids=repr)
    async def test_a_bad_sweep(self, threads: ThreadMap, bad: Any) -> None:
        with pytest.raises(ValueError, match="limit"):
            await threads.sweep(limit=bad)

    async def test_sweeps_add_up(self, threads: ThreadMap, other: ThreadMap) -> None:
        await threads.claim_many([f"t{number}" for number in range(30)], "ann", ttl_seconds=0.05)
        await threads.claim("stays", "ann")
        await _expired(threads, "t29")
        assert await threads.sweep(limit=5) == 5
        swept = await asyncio.gather(*((threads, other)[i % 2].sweep(limit=10) for i in range(6)))
        assert sum(swept) + await threads.sweep() == 25
        assert await threads.sweep() == 0
        assert await threads.owner_of("stays") == "ann"
        assert (await other.claim("t3", "bob")).granted is False

    async def test_a_sweep_drops_old_tombstones(self, build: Build) -> None:
        async with build(tombstone_seconds=0.01) as threads:
            await threads.claim("t", "ann")
            await threads.delete("t", user_id="ann")
            await until(lambda: threads.check_access("t", None, require_existing=False))
            assert await threads.sweep() == 0
            assert await threads.check_access("t", None, require_existing=False)
