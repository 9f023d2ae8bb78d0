"""Expiry and sweeps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from ..threads.base import ThreadMap
from ._threads_common import Build, ThreadMapFixtures, claimed, until


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
