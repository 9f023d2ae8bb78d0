"""Tenants."""

from __future__ import annotations

from typing import Any

import pytest

from ..threads.base import ThreadMap
from ._threads_common import Build, ThreadMapFixtures, claimed


async def _listed(threads: ThreadMap, **query: Any) -> list[str]:
    return [record.thread_id for record in (await threads.list("ann", **query)).items]


class TenantContract(ThreadMapFixtures):
    async def test_tenants_are_apart(self, threads: ThreadMap) -> None:
        view = threads.for_tenant("blue")
        assert (threads.tenant, view.tenant) == ("default", "blue")
        await threads.claim("t", "ann")
        assert (await view.claim("t", "bob")).created
        assert [await threads.owner_of("t"), await view.owner_of("t")] == ["ann", "bob"]
        assert [await threads.count("bob"), await view.count("bob")] == [0, 1]
        async with view:
            await view.delete("t", user_id="bob")
        await view.close()
        assert await threads.owner_of("t") == "ann"
        assert await view.owner_of("t") is None

    @pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "ü", None], ids=repr)
    async def test_bad_tenants(self, threads: ThreadMap, build: Build, bad: Any) -> None:
        with pytest.raises(ValueError, match="tenant"):
            threads.for_tenant(bad)
        with pytest.raises(ValueError, match="tenant"):
            build(tenant=bad)

    async def test_tenants_share_nothing(self, threads: ThreadMap, other: ThreadMap) -> None:
        """Not even with the same users and ids."""
        blue = other.for_tenant("blue")
        await threads.claim_many(["t", "u"], "ann", metadata={"in": "default"})
        theirs = await claimed(blue, "t", "ann", metadata={"in": "blue"})
        for order in ("created_at", "updated_at"):
            assert await _listed(threads, sort_by=order) == ["u", "t"]
            assert await _listed(blue, sort_by=order) == ["t"]
        assert await _listed(blue, ids=["t", "u"]) == ["t"]
        assert await _listed(blue, metadata={"in": "default"}) == []
        assert await blue.count("ann", metadata={"in": "default"}) == 0
        assert await blue.owners_of(["t", "u"]) == {"t": "ann"}
        await threads.update("t", user_id="ann", status="x")
        await threads.transfer("t", "ann", "bob")
        await threads.delete("t", user_id="bob")
        assert await blue.get("t", user_id="ann") == theirs
        await blue.delete("t", user_id="ann")
        assert await _listed(threads) == ["u"]
        assert await threads.check_access("t", "bob", require_existing=False)

    async def test_tenants_are_swept_apart(self, build: Build) -> None:
        async with build(tombstone_seconds=0.000_001) as threads:
            blue = threads.for_tenant("blue")
            for tenant in (threads, blue):
                await tenant.claim_many(["t", "u"], "ann", ttl_seconds=0.000_001)
            assert await threads.sweep() == 2
            assert await threads.sweep() == 0
            assert await blue.sweep() == 2
