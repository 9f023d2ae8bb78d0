"""Batches and concurrent calls: their order, their isolation, and the life of a store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp

from ..errors import ConfigError, StoreUnavailableError
from ..store.base import SharedStore
from ._store_common import BuildStore, StoreFixtures


class BatchContract(StoreFixtures):
    async def test_one_bad_operation_and_nothing_is_done(self, store: SharedStore) -> None:
        bad: tuple[Any, ...] = (
            PutOp(("a",), "k", {"v": {1}}),
            PutOp((), "k", {}),
            PutOp(("a",), "x" * 2000, {}),
            GetOp(("a.b",), "k"),
            SearchOp(("a",), filter={"v": {"$x": 1}}),
            SearchOp(("a",), limit=-1),
            PutOp(("a",), "k", {}, ttl=-1.0),
            "no operation",
        )
        for one in bad:
            with pytest.raises(ValueError):  # noqa: PT011  # the words are free
                await store.abatch([PutOp(("a",), "first", {}), one, PutOp(("a",), "last", {})])
        assert await store.acount() == 0
        assert await store.abatch([]) == []

    async def test_reads_together_answer_as_each_alone(self, store: SharedStore) -> None:
        places = [("n",), ("n", "1"), ("n", "1", "2"), ("n-1",), ("n", "10"), ("m",)]
        await store.abatch([PutOp(place, str(key), {"n": key}) for place in places for key in range(4)])
        for place in places[1:3]:
            await store.aput(place, "0", {"n": 0})  # now the newest
        reads: list[Any] = [
            SearchOp(("n",), limit=100),
            GetOp(("n", "1"), "2"),
            SearchOp(("n", "1"), limit=3, offset=2),
            SearchOp(("n", "1"), filter={"n": 2}),
            SearchOp(("x",)),
            SearchOp(("m",), limit=0),
            ListNamespacesOp((), limit=3),
            SearchOp((), limit=5, offset=20),
            GetOp(("x",), "k"),
            SearchOp(("n", "1"), limit=2**62, offset=2**62),
            SearchOp(("n-1",), limit=2, offset=3),
            GetOp(("m",), "0"),
        ]
        alone = [(await store.abatch([read]))[0] for read in reads]
        assert [len(found) for found in alone if isinstance(found, list)] == [16, 3, 2, 0, 0, 3, 4, 0, 1]
        assert await store.abatch(reads) == alone

    async def test_each_of_twenty_callers_gets_its_own(self, store: SharedStore) -> None:
        """One bad one among them fails alone."""
        await store.abatch([PutOp(("n", str(n)), "k", {"n": n}) for n in range(20)])
        calls: list[Any] = [store.aget(("n", str(n)), "k") for n in range(20)]
        calls[3].close()
        calls[3] = store.aput(("n", "x"), "k", {"v": float("nan")})
        calls.append(store.asearch(("n", "7")))
        calls.append(store.aput(("m",), "k", {}))
        results: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[3], ValueError)
        assert [item.value["n"] for place, item in enumerate(results[:20]) if place != 3] == [
            n for n in range(20) if n != 3
        ]
        assert [item.value for item in results[20]] == [{"n": 7}]
        assert await store.acount(("m",)) == 1

    async def test_calls_on_one_item_take_effect_in_their_order(self, store: SharedStore) -> None:
        calls: list[Any] = []
        for n in range(20):
            calls += [store.aput(("a",), "k", {"n": n}), store.aget(("a",), "k")]
            if n % 5 == 4:
                calls += [store.adelete(("a",), "k"), store.aget(("a",), "k")]
        results = await asyncio.gather(*calls)
        seen = [None if item is None else item.value["n"] for item in results[1::2]]
        assert seen == [0, 1, 2, 3, 4, None, 5, 6, 7, 8, 9, None, 10, 11, 12, 13, 14, None, 15, 16, 17, 18, 19, None]
        assert await store.aget(("a",), "k") is None

    async def test_a_get_does_not_see_a_later_put(self, store: SharedStore) -> None:
        await store.aput(("a",), "k", {"n": 0})
        got, _, again = await asyncio.gather(
            store.aget(("a",), "k"), store.aput(("a",), "k", {"n": 1}), store.aget(("a",), "k")
        )
        assert got is not None
        assert again is not None
        assert (got.value, again.value) == ({"n": 0}, {"n": 1})

    async def test_an_item_made_anew_is_new(self, store: SharedStore) -> None:
        await store.aput(("a",), "k", {})
        first = await store.aget(("a",), "k")
        await asyncio.gather(store.adelete(("a",), "k"), store.aput(("a",), "k", {}))
        second = await store.aget(("a",), "k")
        assert first is not None
        assert second is not None
        assert second.created_at > first.created_at

    async def test_a_large_batch(self, store: SharedStore) -> None:
        count = 2000
        await store.abatch([PutOp(("a", str(n % 10)), str(n), {"n": n}) for n in range(count)])
        items = await store.abatch([GetOp(("a", str(n % 10)), str(n)) for n in range(count)])
        assert [item.value["n"] for item in items] == list(range(count))  # type: ignore[union-attr]  # items
        assert len(await store.asearch((), limit=count * 2)) == count
        await store.abatch([PutOp(("a", str(n % 10)), str(n), None) for n in range(count)])
        assert await store.acount() == 0

    async def test_opposite_orders(self, store: SharedStore, other: SharedStore) -> None:
        keys = [str(n) for n in range(30)]

        async def work(replica: SharedStore, order: list[str], turn: int) -> None:
            ops = [
                PutOp(("a",), key, {"turn": turn} if (place + turn) % 3 else None) for place, key in enumerate(order)
            ]
            await replica.abatch(ops)

        for turn in range(10):
            await asyncio.gather(
                work(store, keys, turn),
                work(other, keys[::-1], turn),
                work(store, keys[::-1], turn + 1),
                work(other, keys, turn),
            )

    async def test_a_cancelled_caller_harms_nobody(self, store: SharedStore) -> None:
        await store.aput(("a",), "k", {"n": 0})
        for _ in range(10):
            tasks: list[asyncio.Task[Any]] = [asyncio.create_task(store.aget(("a",), "k")) for _ in range(5)]
            put: asyncio.Task[Any] = asyncio.create_task(store.aput(("a",), "cancelled", {"whole": [1, 2, 3]}))
            await asyncio.sleep(0)
            tasks[1].cancel()
            put.cancel()
            results = await asyncio.gather(*tasks, put, return_exceptions=True)
            assert all(getattr(results[place], "value", None) == {"n": 0} for place in (0, 2, 3, 4))
        item = await store.aget(("a",), "cancelled")
        assert item is None or item.value == {"whole": [1, 2, 3]}

    async def test_two_replicas_see_each_other_at_once(self, store: SharedStore, other: SharedStore) -> None:
        for n in range(10):
            await store.aput(("a",), "k", {"n": n})
            item = await other.aget(("a",), "k")
            assert item is not None
            assert item.value == {"n": n}


class LifeContract(StoreFixtures):
    async def test_before_setup(self, build: BuildStore) -> None:
        async with build() as store:
            with pytest.raises(ConfigError, match=r"setup\(\)"):
                await store.aget(("a",), "k")
            with pytest.raises(ConfigError, match=r"setup\(\)"):
                await store.aput(("a",), "k", {})
            await store.asetup()
            await store.aput(("a",), "k", {})

    async def test_setup_can_be_repeated_and_shared(self, build: BuildStore) -> None:
        stores = [build() for _ in range(4)]
        try:
            for _ in range(2):
                await asyncio.gather(*(store.asetup() for store in stores))
            await stores[0].aput(("a",), "k", {})
            assert [await store.acount() for store in stores] == [1] * 4
        finally:
            await asyncio.gather(*(store.aclose() for store in stores))

    async def test_a_closed_store_says_so(self, build: BuildStore) -> None:
        store = build()
        await store.asetup()
        await store.aclose()
        await store.aclose()
        for call in (store.aget(("a",), "k"), store.aput(("a",), "k", {}), store.asearch(()), store.asetup()):
            with pytest.raises(StoreUnavailableError, match="closed"):
                await call

    async def test_a_store_that_was_never_used_closes(self, build: BuildStore) -> None:
        await build().aclose()
        await asyncio.to_thread(build().close)

    async def test_closing_lets_calls_finish(self, build: BuildStore) -> None:
        async with build() as store:
            await store.asetup()
            async with build() as leaving:
                puts = [asyncio.create_task(leaving.aput(("a",), str(n), {})) for n in range(20)]
                await asyncio.sleep(0)
            await asyncio.gather(*puts)
            assert await store.acount() == 20

    async def test_configuration_is_read_at_every_call(self, store: SharedStore) -> None:
        assert store.supports_ttl
        assert store.ttl_config == {}
        store.ttl_config["default_ttl"] = -1
        with pytest.raises(ValueError, match="ttl"):
            await store.aput(("a",), "k", {})
        store.ttl_config["default_ttl"] = None
        await store.aput(("a",), "k", {})
