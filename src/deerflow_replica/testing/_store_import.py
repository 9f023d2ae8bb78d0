"""Items of another store, with their stamps: what an import asks of a backend."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ..store.base import SharedStore
from ..store.values import OnConflict, TakenOver
from ._store_common import StoreFixtures, keys_of

CREATED = datetime(2001, 2, 3, 4, 5, 6, 789_012, UTC)
UPDATED = datetime(2002, 3, 4, 5, 6, 7, 890_123, UTC)
HOUR = timedelta(hours=1)


def taken(key: str, n: int = 0, updated_at: datetime = UPDATED, expires_at: datetime | None = None) -> TakenOver:
    ttl = None if expires_at is None else HOUR // timedelta(microseconds=1)
    return TakenOver(("a", "b"), key, {"n": n}, CREATED, updated_at, expires_at, ttl)


class ImportContract(StoreFixtures):
    async def test_an_item_taken_over_keeps_its_stamps(self, store: SharedStore) -> None:
        assert await store._take_over([taken("k", 1), taken("l", 2, UPDATED + HOUR)], "skip") == 2
        item = await store.aget_versioned(("a", "b"), "k")
        assert item is not None
        assert (item.value, item.created_at, item.updated_at) == ({"n": 1}, CREATED, UPDATED)
        assert await keys_of(store, "a") == ["l", "k"]
        version = await store.aput(("a", "b"), "k", {"n": 3}, if_version=item.version)
        assert version is not None
        assert version > item.version
        item = await store.aget_versioned(("a", "b"), "k")
        assert item is not None
        assert item.created_at == CREATED
        assert item.updated_at > UPDATED

    async def test_what_is_there_is_kept_replaced_or_compared(self, store: SharedStore) -> None:
        await store._take_over([taken("k", 0)], "skip")
        for on_conflict, updated_at, n, is_written in (
            ("skip", UPDATED + HOUR, 1, False),
            ("newer", UPDATED - HOUR, 2, False),
            ("newer", UPDATED, 3, False),
            ("newer", UPDATED + HOUR, 4, True),
            ("replace", UPDATED - HOUR, 5, True),
        ):
            before = await store.aget_versioned(("a", "b"), "k")
            assert await _count(store, [taken("k", n, updated_at)], on_conflict) == is_written
            after = await store.aget_versioned(("a", "b"), "k")
            assert before is not None
            assert after is not None
            assert (after.value == {"n": n}) == (after.version > before.version) == is_written
            assert after.updated_at == (updated_at if is_written else before.updated_at)
            assert await _count(store, [taken("k", n, updated_at), taken(f"{n}")], on_conflict) >= 1
            assert await store.acount() == n + 1
            await store._take_over([taken("k", n, after.updated_at)], "replace")

    async def test_what_is_left_of_a_time_to_live(self, store: SharedStore) -> None:
        now = datetime.now(UTC)
        await store._take_over([taken("gone", expires_at=now - HOUR), taken("left", expires_at=now + HOUR)], "skip")
        await store._take_over([taken("never", expires_at=now - HOUR)], "skip")
        await store._take_over([taken("never")], "replace")
        store.ttl_config["omit_expired"] = True
        assert sorted(await keys_of(store, "a")) == ["left", "never"]
        assert await store.asweep_ttl() == 1
        assert await store.acount() == 2

    async def test_into_a_view(self, store: SharedStore) -> None:
        await store.scoped("team")._take_over([taken("k")], "skip")
        assert await store.alist_namespaces() == [("team", "a", "b")]
        assert await store._take_over([taken("x")], None) == 0
        assert await store.acount() == 1


async def _count(store: SharedStore, items: list[TakenOver], on_conflict: Any) -> int:
    how: OnConflict = on_conflict
    return await store._take_over(items, how)
