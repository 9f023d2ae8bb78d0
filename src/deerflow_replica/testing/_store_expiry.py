"""Time to live."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from langgraph.store.base import PutOp

from ..errors import VersionConflictError
from ..store.base import SharedStore
from ._contract import for_one_of
from ._store_common import BuildStore, StoreFixtures, keys_of, until

SOON = 0.12 / 60  # minutes
LATER = 60.0


class ExpiryContract(StoreFixtures):
    @pytest.fixture
    async def live(self, build: BuildStore, store: SharedStore) -> Any:
        """A replica for which what has expired is not there."""
        async with build(ttl={"omit_expired": True}) as live:
            yield live

    @pytest.mark.parametrize("ttl", [0, -1, -0.5, float("nan"), float("inf"), "1", True])
    async def test_bad_ttls_are_refused(self, store: SharedStore, ttl: Any) -> None:
        with pytest.raises(ValueError, match="ttl"):
            await store.aput(("a",), "k", {}, ttl=ttl)
        assert await store.acount() == 0

    async def test_the_longest(self, store: SharedStore, live: SharedStore) -> None:
        for ttl in (1e300, 10**400):
            await store.aput(("a",), "k", {}, ttl=ttl)
            assert await live.aget(("a",), "k") is not None

    async def test_what_expired_stays_until_it_is_swept(self, store: SharedStore) -> None:
        await store.aput(("a",), "k", {}, ttl=SOON)
        await store.aput(("a",), "stays", {})
        assert await until(store.asweep_ttl) == 1
        assert await keys_of(store) == ["stays"]

    async def test_what_expired_is_not_there_for_who_omits_it(self, store: SharedStore, live: SharedStore) -> None:
        await store.aput(("a",), "k", {"n": 1}, ttl=SOON)
        await store.aput(("b",), "k", {"n": 1}, ttl=LATER)
        await until(lambda: _gone(live))
        assert await live.aget_versioned(("a",), "k") is None
        assert [item.namespace for item in await live.asearch(())] == [("b",)]
        assert await live.acount() == 1
        assert await live.alist_namespaces() == [("b",)]
        assert await store.aget(("a",), "k", refresh_ttl=True) is not None
        assert await live.aget(("a",), "k") is None  # a read revives nothing
        assert await store.alist_namespaces() == [("a",), ("b",)]

    async def test_a_put_over_what_expired_creates(self, store: SharedStore, live: SharedStore) -> None:
        await store.aput(("a",), "k", {"n": 1}, ttl=SOON)
        old = await store.aget_versioned(("a",), "k")
        assert old is not None
        await until(lambda: _gone(live))
        with pytest.raises(VersionConflictError) as caught:
            await live.aput(("a",), "k", {"n": 2}, if_version=old.version)
        assert caught.value.current == 0
        with pytest.raises(VersionConflictError):
            await store.aput(("a",), "k", {"n": 2}, if_version=0)
        version = await live.aput(("a",), "k", {"n": 2}, if_version=0)
        new = await live.aget_versioned(("a",), "k")
        assert new is not None
        assert new.version == version
        assert new.version > old.version
        assert new.created_at > old.created_at
        assert new.created_at == new.updated_at
        await store.aput(("a",), "k", {"n": 3}, ttl=SOON)
        await until(lambda: _gone(live))
        await live.aput(("a",), "k", {"n": 4})
        again = await live.aget_versioned(("a",), "k")
        assert again is not None
        assert again.created_at > new.created_at

    async def test_an_update_of_what_expired_creates(self, store: SharedStore, live: SharedStore) -> None:
        await store.aput(("a",), "k", {"n": 1}, ttl=SOON)
        await until(lambda: _gone(live))
        updated = await live.aupdate(("a",), "k", lambda value: {"was": value})
        assert updated is not None
        assert updated.value == {"was": None}
        assert await live.aget(("a",), "k") is not None

    async def test_a_read_restarts_the_items_own_ttl(self, store: SharedStore, live: SharedStore) -> None:
        async def is_restarted(seconds: float) -> bool:
            place = ("a", f"{seconds * 10:.0f}")
            for key in ("left", "found", "read"):
                await store.aput(place, key, {}, ttl=seconds / 60)
            await store.aupdate(place, "read", lambda _: {"updated": True})  # it keeps its own
            deadline = time.monotonic() + 1.6 * seconds
            while time.monotonic() < deadline:
                await live.aget(place, "read")
                await live.asearch(place, filter={}, limit=1, offset=1)  # "found" is in the middle
                await live.aget(place, "left", refresh_ttl=False)
                await asyncio.sleep(0.02)
            return sorted(await keys_of(live, *place)) == ["found", "read"]

        assert await for_one_of((0.5, 5.0), is_restarted)

    async def test_a_put_sets_or_clears_it(self, store: SharedStore, live: SharedStore) -> None:
        await store.aput(("a",), "k", {}, ttl=SOON)
        await store.aput(("a",), "k", {})
        await store.aput(("a",), "l", {}, ttl=LATER)
        await store.aput(("a",), "l", {}, ttl=SOON)
        await until(lambda: _gone(live, "l"))
        assert await live.aget(("a",), "k") is not None

    async def test_an_update_keeps_the_rule_unless_told(self, store: SharedStore, live: SharedStore) -> None:
        def changed(value: dict[str, Any] | None) -> dict[str, Any]:
            return {"was": value}

        async def is_kept(seconds: float) -> bool:
            kept, cleared = f"kept {seconds:g}", f"cleared {seconds:g}"
            for key in (kept, cleared):
                await store.aput(("a",), key, {"n": 0}, ttl=seconds / 60)
            updated = await live.aupdate(("a",), kept, changed)
            await live.aupdate(("a",), cleared, changed, ttl=None)
            if updated is None or updated.value["was"] is None:
                return False  # it was made anew, too late
            await until(lambda: _gone(live, kept))
            return await live.aget(("a",), cleared) is not None

        assert await for_one_of((0.3, 3.0), is_kept)

    async def test_an_update_gives_no_default_to_what_never_expires(
        self, build: BuildStore, store: SharedStore
    ) -> None:
        async with build(ttl={"default_ttl": SOON, "omit_expired": True}) as brief:
            await brief.aput(("a",), "never", {"n": 1}, ttl=None)
            await brief.aput(("a",), "soon", {"n": 1})
            await brief.aupdate(("a",), "never", lambda _: {"n": 2})
            await until(lambda: _gone(brief, "soon"))
            assert await keys_of(brief) == ["never"]

    async def test_a_namespace_is_deleted_with_what_expired_in_it(self, store: SharedStore, live: SharedStore) -> None:
        for replica, counted in ((live, 1), (store, 2)):
            await store.aput(("a", "b"), "k", {}, ttl=SOON)
            await store.aput(("a",), "k", {}, ttl=LATER)
            await until(lambda: _is_first_gone(live))
            assert await replica.adelete_namespace(("a",)) == counted
            assert await store.acount() == 0

    async def test_the_default_is_for_who_says_nothing(self, build: BuildStore, store: SharedStore) -> None:
        async with build(ttl={"default_ttl": SOON, "omit_expired": True}) as brief:
            await brief.aput(("a",), "default", {})
            await brief.aput(("a",), "never", {}, ttl=None)
            await brief.aput(("a",), "later", {}, ttl=LATER)
            await brief.aupdate(("a",), "made", lambda _: {})
            await until(lambda: _gone(brief, "default"))
            await until(lambda: _gone(brief, "made"))
            assert sorted(await keys_of(brief)) == ["later", "never"]

    async def test_many_are_swept_in_steps(self, store: SharedStore) -> None:
        await store.abatch([PutOp(("a",), str(n), {}, ttl=0.001 / 60) for n in range(1100)])
        await store.aput(("a",), "stays", {}, ttl=LATER)
        swept = 0

        async def sweep() -> bool:
            nonlocal swept
            swept += await store.asweep_ttl()
            return swept >= 1100

        await until(sweep)
        assert swept == 1100
        assert await keys_of(store) == ["stays"]

    async def test_the_sweeper_sweeps_in_the_background(self, store: SharedStore) -> None:
        await store.aput(("a",), "k", {}, ttl=0.001 / 60)
        await store.astart_ttl_sweeper(0.01 / 60)
        await store.astart_ttl_sweeper(0.01 / 60)
        await until(lambda: _is_empty(store))
        assert await store.astop_ttl_sweeper()
        assert await store.astop_ttl_sweeper(0.1)
        await store.aput(("a",), "k", {}, ttl=0.001 / 60)
        await asyncio.to_thread(store.start_ttl_sweeper, 0.01 / 60)
        await until(lambda: _is_empty(store))
        assert await asyncio.to_thread(store.stop_ttl_sweeper, 60.0)

    @pytest.mark.parametrize("minutes", [-1, float("nan"), "often"])
    async def test_a_sweeper_without_a_pause_is_refused(self, store: SharedStore, minutes: Any) -> None:
        with pytest.raises(ValueError, match="sweep_interval_minutes"):
            await store.astart_ttl_sweeper(minutes)
        assert await store.astop_ttl_sweeper()


async def _gone(store: SharedStore, key: str = "k") -> bool:
    return await store.aget(("a",), key, refresh_ttl=False) is None


async def _is_first_gone(store: SharedStore) -> bool:
    return await store.acount() == 1


async def _is_empty(store: SharedStore) -> bool:
    return await store.acount() == 0
