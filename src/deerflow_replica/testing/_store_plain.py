"""What every `BaseStore` does, LangGraph's own in memory too: it proves the tests."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from langgraph.store.base import BaseStore, GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp

from ._contract import Contract
from ._store_common import HOSTILE_LABELS, keys_of

VALUES: tuple[dict[str, Any], ...] = (
    {},
    {"a": None, "b": True, "c": False},
    {"n": [0, -1, 2**63 - 1, -(2**63), 2**53 + 1]},
    {"f": [0.1, -2.5, 1e-300, 5e-324, 1.7976931348623157e308, 1e16, 1e23, 2.0**53, 1.0, 123456789.123456789]},
    {"text": "é \U0001f98c ü \u2028 \x01 \x7f \" ' \\ % {} $ \\u0000"},
    {"": {"": [{}, [], [[]], ""]}},
    {"a.b": 1, "$gt": 2, "_id": 3, "namespace": 4, "deep": {"x": {"y": {"z": [1, {"w": None}]}}}},
)


def types_of(value: Any) -> Any:
    """1 is not 1.0 here."""
    if isinstance(value, dict):
        return {name: types_of(one) for name, one in value.items()}
    return [types_of(one) for one in value] if isinstance(value, list) else type(value)


class PlainStoreContract(Contract):
    """Subclass it and provide the fixture `store`: an empty `BaseStore`."""

    @pytest.fixture
    async def store(self) -> BaseStore:
        raise NotImplementedError

    async def test_what_is_missing_is_none(self, store: BaseStore) -> None:
        await store.aput(("a", "b"), "k", {})
        for namespace, key in ((("a", "b"), "K"), (("a",), "k"), (("a", "b", "c"), "k"), (("A", "b"), "k"), ((), "k")):
            assert await store.aget(namespace, key) is None

    @pytest.mark.parametrize("value", VALUES)
    async def test_values_come_back_exactly(self, store: BaseStore, value: dict[str, Any]) -> None:
        await store.aput(("a",), "k", value)
        item = await store.aget(("a",), "k")
        assert item is not None
        assert item.value == value
        assert types_of(item.value) == types_of(value)
        [found] = await store.asearch(("a",))
        assert types_of(found.value) == types_of(value)

    async def test_a_prefix_is_made_of_labels(self, store: BaseStore) -> None:
        for namespace in (("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("a-b",), ("a b",), ("b", "a")):
            await store.aput(namespace, "/".join(namespace), {})
        assert sorted(await keys_of(store, "a")) == ["a", "a/b", "a/b/c"]
        assert sorted(await keys_of(store, "a", "b")) == ["a/b", "a/b/c"]
        assert await keys_of(store, "b") == ["b/a"]
        assert await keys_of(store, "c") == []
        assert len(await keys_of(store)) == 7

    async def test_namespaces_are_sorted_as_tuples(self, store: BaseStore) -> None:
        namespaces = [
            ("a",),
            ("a", "b"),
            ("a-b",),
            ("a b",),
            ("a", "a", "a"),
            ("A",),
            ("é",),
            ("\U0001f98c",),
            ("\uffff",),
        ]
        for namespace in namespaces:
            await store.aput(namespace, "k", {})
            await store.aput(namespace, "l", {})
        assert await store.alist_namespaces() == sorted(namespaces)

    async def test_prefix_and_suffix(self, store: BaseStore) -> None:
        namespaces = [
            ("a", "x", "v1"),
            ("a", "y", "v1"),
            ("a", "y", "v2"),
            ("b", "x", "v1"),
            ("a",),
            ("v1",),
            ("ab", "x"),
        ]
        for namespace in namespaces:
            await store.aput(namespace, "k", {})

        async def found(**query: Any) -> set[tuple[str, ...]]:
            return set(await store.alist_namespaces(**query))

        assert await found(prefix=("a",)) == {one for one in namespaces if one[0] == "a"}
        assert await found(suffix=("v1",)) == {one for one in namespaces if one[-1] == "v1"}
        assert await found(prefix=("a",), suffix=("v1",)) == {("a", "x", "v1"), ("a", "y", "v1")}
        assert await found(prefix=("a", "*", "v1")) == {("a", "x", "v1"), ("a", "y", "v1")}
        assert await found(prefix=("*", "x")) == {("a", "x", "v1"), ("b", "x", "v1"), ("ab", "x")}
        assert await found(suffix=("y", "*")) == {("a", "y", "v1"), ("a", "y", "v2")}
        assert await found(prefix=("*", "*", "*", "*")) == set()
        assert await found(prefix=(), suffix=()) == set(namespaces)
        assert await found(prefix=("a", "y"), max_depth=2) == {("a", "y")}
        conditions = (MatchCondition("prefix", ("a",)), MatchCondition("prefix", ("*", "y")))
        assert await store.abatch([ListNamespacesOp(conditions)]) == [[("a", "y", "v1"), ("a", "y", "v2")]]

    @pytest.mark.parametrize("max_depth", [None, 1, 2])
    async def test_pages_of_labels_that_differ_in_few_characters(self, store: BaseStore, max_depth: int | None) -> None:
        """Some are before a dot in the order of characters, so joined labels are in another order than tuples."""
        labels = ("a", "a-", "a-b", "a!", "ab", "-", "b", "b b")
        random = Random(7)
        there = {tuple(random.choices(labels, k=random.randint(1, 3))) for _ in range(60)}
        await store.abatch([PutOp(namespace, "k", {}) for namespace in sorted(there)])
        for prefix in ((), ("a",), ("a-", "a")):
            found = sorted({one[:max_depth] for one in there if one[: len(prefix)] == prefix})
            for limit, offset in ((3, 0), (1, 7), (5, 11), (100, 2)):
                page = await store.alist_namespaces(prefix=prefix, max_depth=max_depth, limit=limit, offset=offset)
                assert page == found[offset : offset + limit]

    async def test_labels_are_no_patterns(self, store: BaseStore) -> None:
        for label in HOSTILE_LABELS:
            await store.aput(("p", label, "s"), "k", {})
        for label in HOSTILE_LABELS:
            if label != "*":
                assert await store.alist_namespaces(prefix=("p", label)) == [("p", label, "s")]
                assert await store.alist_namespaces(suffix=(label, "s")) == [("p", label, "s")]
        assert len(await store.alist_namespaces(prefix=("p", "*"))) == len(HOSTILE_LABELS)

    async def test_many_namespaces(self, store: BaseStore) -> None:
        await store.abatch([PutOp(("n", str(n % 300), str(n % 7)), str(n), {}) for n in range(3000)])
        assert len(await store.alist_namespaces(limit=5000)) == 2100
        assert len(await store.alist_namespaces(max_depth=2, limit=5000)) == 300

    async def test_reads_come_before_puts(self, store: BaseStore) -> None:
        await store.aput(("a",), "old", {"n": 1})
        put, got, found, namespaces, gone, missing = await store.abatch(
            [
                PutOp(("a",), "new", {"n": 2}),
                GetOp(("a",), "old"),
                SearchOp(("a",)),
                ListNamespacesOp(),
                PutOp(("a",), "old", None),
                GetOp(("a",), "new"),
            ]
        )
        assert (put, gone, missing) == (None, None, None)
        assert got.value == {"n": 1}  # type: ignore[union-attr]  # an item
        assert [one.key for one in found] == ["old"]  # type: ignore[union-attr]  # items
        assert namespaces == [("a",)]
        assert await keys_of(store) == ["new"]

    async def test_the_last_put_of_an_item_wins(self, store: BaseStore) -> None:
        await store.abatch(
            [PutOp(("a",), "k", {"n": n}) for n in range(5)] + [PutOp(("a",), "l", {}), PutOp(("a",), "l", None)]
        )
        item = await store.aget(("a",), "k")
        assert item is not None
        assert item.value == {"n": 4}
        assert await keys_of(store) == ["k"]
