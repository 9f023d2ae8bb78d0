"""Search, its filters and pages, and lists of namespaces."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.base import PutOp

from ..store.base import SharedStore
from ..store.filters import matches
from ._store_common import StoreFixtures, fill, keys_of

NAN, INFINITY = float("nan"), float("inf")

VALUES: tuple[dict[str, Any], ...] = (
    {},
    {"v": None},
    {"v": True},
    {"v": False},
    {"v": 0},
    {"v": 1},
    {"v": 1.0},
    {"v": 2},
    {"v": 10},
    {"v": 9.5},
    {"v": -3},
    {"v": 2**53 + 1},
    {"v": 2.0**53},
    {"v": 2**63 - 1},
    {"v": 1e23},
    {"v": 1e300},
    {"v": "1"},
    {"v": "10"},
    {"v": ""},
    {"v": "a"},
    {"v": "B"},
    {"v": "é"},
    {"v": "\U0001f98c"},
    {"v": "\uffff"},
    {"v": "a' OR 1=1 --"},
    {"v": "%"},
    {"v": []},
    {"v": [1]},
    {"v": [True]},
    {"v": [1, 2]},
    {"v": [1, "2", None]},
    {"v": [[1], {"x": 1}]},
    {"v": {}},
    {"v": {"x": 1}},
    {"v": {"x": 1, "y": [1, {"z": 2}]}},
    {"v": {"x": {"y": 5}}},
    {"a.b": 1, "v": 1},
    {"a": {"b": 1}},
    {"$v": 1, "x' OR 1=1": 2},
)

FILTERS: tuple[dict[str, Any], ...] = (
    {},
    *({"v": one.get("v")} for one in VALUES),
    *({"v": {"$eq": one.get("v")}} for one in VALUES),
    *({"v": {"$ne": one.get("v")}} for one in VALUES),
    *(
        {"v": {operator: operand}}
        for operator in ("$gt", "$gte", "$lt", "$lte")
        for operand in (
            0,
            1,
            9.5,
            10,
            -INFINITY,
            INFINITY,
            10**30,
            -(10**400),
            10**5000,
            2**53,
            2.0**53 + 2,
            NAN,
            "1",
            "a",
            "é",
            "\uffff",
        )
    ),
    {"v": {"$gt": None}},
    {"v": {"$gt": True}},
    {"v": {"$gte": []}},
    {"v": {"$lte": {}}},
    {"v": {"$gt": "a\x00"}},
    {"v": {"$lt": "\ud800"}},
    {"v": {"$in": []}},
    {"v": {"$in": [1, "a", None]}},
    {"v": {"$in": [[1], {"x": 1}, True, NAN]}},
    {"v": {"$nin": []}},
    {"v": {"$nin": [1, "a", None, "\x00"]}},
    {"v": {"$exists": True}},
    {"v": {"$exists": False}},
    {"v": {"$contains": 1}},
    {"v": {"$contains": None}},
    {"v": {"$contains": "a"}},
    {"v": {"$contains": ""}},
    {"v": {"$contains": {"x": 1}}},
    {"v": {"$contains": [1]}},
    {"v": {"$contains": "\x00"}},
    {"v": {"$not": 1}},
    {"v": {"$not": {"$gt": 1}}},
    {"v": {"$not": {"$exists": True}}},
    {"v": {"$gt": 0, "$lt": 10}},
    {"v": {"$gte": 1, "$ne": 1}},
    {"v": {"x": {"$gte": 1}}},
    {"v": {"x": {"y": {"$in": [5]}}}},
    {"v": {"x": None}},
    {"v": {"nothing": {"$exists": False}}},
    {"v": [1, {"$gt": 1}]},
    {"v": [{"$exists": True}]},
    {"v": [[1], {"x": {"$lt": 2}}]},
    {"v": {"$eq": NAN}},
    {"v": {"$ne": NAN}},
    {"v": NAN},
    {"v": "a\x00b"},
    {"v": {"$ne": "\ud800"}},
    {"v": {"$eq": [1, NAN]}},
    {"v": {"$ne": {"x": "\x00"}}},
    {"v": 10**30},
    {"v": {"$ne": 10**5000}},
    {"v": {"$ne": 10**30}},
    {"v": 10**23},
    {"a.b": 1},
    {"a": {"b": 1}},
    {"x' OR 1=1": 2},
    {"v' OR 1=1 --": {"$ne": 1}},
    {"a\x00": None},
    {"\ud800": {"$exists": False}},
    {"missing": None},
    {"missing": {"$ne": 1}},
    {"missing": {"$lt": 1}},
    {"$and": []},
    {"$or": []},
    {"$or": [{"v": 1}, {"v": "a"}]},
    {"$and": [{"v": {"$gt": 0}}, {"$not": {"v": 1}}]},
    {"$not": {}},
    {"$not": {"v": {"$exists": True}}},
    {"$or": [{"v": 2}, {"$and": [{"a.b": 1}, {"v": 1}]}], "v": {"$gte": 1}},
)

BAD_FILTERS: tuple[Any, ...] = (
    {"v": {"$regex": "a"}},
    {"v": {"$gt": 1, "x": 2}},
    {"v": {"x": {"$near": 1}}},
    {"$nor": []},
    {"v": {"$and": []}},
    {"v": {"$in": 1}},
    {"v": {"$in": "ab"}},
    {"v": {"$nin": None}},
    {"v": {"$exists": 1}},
    {"$and": {"v": 1}},
    {"$or": [1]},
    {"$not": [1]},
    {"v": {1, 2}},
    {"v": b"bytes"},
    {"v": {1: 2}},
    {1: 2},
)


class SearchContract(StoreFixtures):
    async def test_newest_first(self, store: SharedStore) -> None:
        await fill(store, ("a",), {}, {}, {})
        await store.aput(("a",), "1", {"again": True})
        assert await keys_of(store, "a") == ["1", "2", "0"]

    async def test_equal_stamps_have_an_order(self, store: SharedStore) -> None:
        """Whatever the stamps of one batch are, pages neither repeat nor skip."""
        namespaces = [("a", label) for label in ("b", "b-c", "b c")] + [("a", "b", "c"), ("a",)]
        await store.abatch([PutOp(namespace, str(key), {}) for namespace in namespaces for key in range(5)])
        whole = [(item.namespace, item.key, item.updated_at) for item in await store.asearch(("a",), limit=100)]
        assert len(whole) == 25
        assert whole == sorted(sorted(whole), key=lambda one: one[2], reverse=True)
        for size in (1, 3, 7):
            pages = [await store.asearch(("a",), limit=size, offset=start) for start in range(0, 25, size)]
            assert [(item.namespace, item.key, item.updated_at) for page in pages for item in page] == whole

    async def test_pages(self, store: SharedStore) -> None:
        await fill(store, ("a",), *({"n": n} for n in range(15)))
        assert len(await store.asearch(("a",))) == 10
        assert await keys_of(store, "a", limit=3, offset=13) == ["1", "0"]
        assert await keys_of(store, "a", limit=3, offset=15) == []
        assert await keys_of(store, "a", limit=0) == []
        assert await keys_of(store, "a", limit=2**70, offset=2**70) == []
        assert len(await keys_of(store, "a", limit=2**70)) == 15
        bad: tuple[dict[str, Any], ...] = ({"limit": -1}, {"offset": -1}, {"limit": True}, {"limit": "1"})
        for page in bad:
            with pytest.raises(ValueError, match=r"limit|offset"):
                await store.asearch(("a",), **page)

    async def test_a_query_without_an_index_is_ignored(self, store: SharedStore) -> None:
        await fill(store, ("a",), {"t": "x"}, {"t": "y"})
        found = await store.asearch(("a",), query="x")
        assert [(item.key, item.score) for item in found] == [("1", None), ("0", None)]

    async def test_count(self, store: SharedStore) -> None:
        await fill(store, ("a", "b"), *({"n": n} for n in range(15)))
        await store.aput(("ab",), "k", {"n": 3})
        assert await store.acount() == 16
        assert await store.acount(("a",)) == 15
        assert await store.acount(("a",), filter={"n": {"$gte": 10}}) == 5
        assert await store.acount(("nowhere",)) == 0

    async def test_filters_mean_what_they_mean(self, store: SharedStore) -> None:
        """Every filter finds, among all values, those that `matches` says."""
        await store.abatch([PutOp(("a",), str(place), value) for place, value in enumerate(VALUES)])
        for filter_ in FILTERS:
            expected = {str(place) for place, value in enumerate(VALUES) if matches(value, filter_)}
            found = await keys_of(store, "a", filter=filter_, limit=1000)
            assert set(found) == expected, filter_
            assert len(found) == len(expected)
            assert await store.acount((), filter=filter_) == len(expected), filter_

    async def test_any_number_of_operands(self, store: SharedStore) -> None:
        """Of all types, with those among them that nothing equals."""
        values: list[Any] = [7, 7.0, True, "7", None, [7], {"x": 7}, "é", 2**63 - 1, 1e300, 7.5, 0, [True], {"x": 8}]
        await store.abatch([PutOp(("a",), str(place), {"v": value}) for place, value in enumerate(values)])
        await store.aput(("a",), "missing", {})
        others: list[Any] = [*range(-50_000, 0), *map(str, range(100_000, 149_983)), NAN, "\x00", 10**400]
        wanted: list[Any] = [
            7,
            True,
            None,
            {"x": 7.0},
            "é",
            2**63 - 1,
            1e300,
            [1.0],
            [7],
            "none",
            {"x": [7]},
            [],
            {},
            9,
        ]
        operands = [*others[:50_000], *wanted, *others[50_000:]]
        assert len(operands) == 100_000
        expected = {str(place) for place, value in enumerate(values) if matches({"v": value}, {"v": {"$in": wanted}})}
        expected |= {"missing"}
        every = {"missing", *map(str, range(len(values)))}
        assert expected == {"0", "1", "2", "4", "5", "6", "7", "8", "9", "missing"}
        assert set(await keys_of(store, "a", filter={"v": {"$in": operands}}, limit=100)) == expected
        assert set(await keys_of(store, "a", filter={"v": {"$nin": operands}}, limit=100)) == every - expected
        assert await store.acount(("a",), filter={"v": {"$in": operands}}) == len(expected)

    async def test_long_operands(self, store: SharedStore) -> None:
        """Longer than any value is."""
        await fill(store, ("a",), {"v": "x"})
        assert await keys_of(store, "a", filter={"v": {"$in": ["x" * 2**20] * 17}}) == []
        assert await keys_of(store, "a", filter={"v": {"$ne": "x" * 17 * 2**20}}) == ["0"]
        assert await keys_of(store, "a", filter={"v": {"$gt": "a" * 17 * 2**20}}) == ["0"]

    async def test_large_filters(self, store: SharedStore) -> None:
        """Up to a size that is the same everywhere, and told."""
        await fill(store, ("a",), {"v": 1}, {"v": "x"}, {})
        most = [{"v": place} for place in range(5_000)]
        assert await keys_of(store, "a", filter={"$or": most}) == ["0"]
        assert await keys_of(store, "a", filter={f"n{place}": None for place in range(5_000)}, limit=1) == ["2"]
        for large in ({"$or": [*most, {}]}, {f"n{place}": None for place in range(5_001)}, {"v": [0] * 10_000}):
            with pytest.raises(ValueError, match="10000 names"):
                await store.asearch(("a",), filter=large)
            with pytest.raises(ValueError, match="10000 names"):
                await store.acount(("a",), filter=large)

    async def test_filtered_pages(self, store: SharedStore) -> None:
        await fill(store, ("a",), *({"n": n % 3} for n in range(15)))
        found = [await keys_of(store, "a", filter={"n": 1}, limit=2, offset=start) for start in (0, 2, 4)]
        assert found == [["13", "10"], ["7", "4"], ["1"]]

    @pytest.mark.parametrize("filter_", BAD_FILTERS, ids=repr)
    async def test_filters_that_mean_nothing_are_refused(self, store: SharedStore, filter_: Any) -> None:
        with pytest.raises(ValueError):  # noqa: PT011  # the words are free
            await store.asearch((), filter=filter_)
        with pytest.raises(ValueError):  # noqa: PT011  # the words are free
            await store.acount(filter=filter_)


class NamespaceContract(StoreFixtures):
    async def test_depth_is_cut_before_duplicates_go_and_pages_come_last(self, store: SharedStore) -> None:
        for one in range(3):
            for two in range(3):
                await store.aput(("a", str(one), str(two)), "k", {})
        await store.aput(("a", "0"), "k", {})
        assert await store.alist_namespaces(max_depth=2) == [("a", "0"), ("a", "1"), ("a", "2")]
        assert await store.alist_namespaces(max_depth=2, limit=1, offset=1) == [("a", "1")]
        assert await store.alist_namespaces(max_depth=2, offset=3) == []
        assert await store.alist_namespaces(max_depth=1) == [("a",)]
        assert len(await store.alist_namespaces(max_depth=9)) == 10
        assert await store.alist_namespaces(limit=0) == []
        bad: tuple[dict[str, Any], ...] = ({"limit": -1}, {"offset": -1}, {"max_depth": -1})
        for page in bad:
            with pytest.raises(ValueError, match=r"limit|offset|max_depth"):
                await store.alist_namespaces(**page)
