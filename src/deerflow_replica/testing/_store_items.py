"""Items: what is put can be got, and nothing else."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)

from ..store.base import SharedStore
from ._store_common import BAD_KEYS, BAD_NAMESPACES, BAD_VALUES, HOSTILE_KEYS, HOSTILE_LABELS, StoreFixtures
from ._store_plain import types_of


class ItemContract(StoreFixtures):
    async def test_what_is_put_is_got(self, store: SharedStore, other: SharedStore) -> None:
        await store.aput(("a", "b"), "k", {"x": 1})
        for replica in (store, other):
            item = await replica.aget(("a", "b"), "k")
            assert type(item) is Item
            assert (item.namespace, item.key, item.value) == (("a", "b"), "k", {"x": 1})

    async def test_reading_creates_nothing(self, store: SharedStore) -> None:
        assert await store.aget(("a",), "k") is None
        assert await store.asearch(("b",)) == []
        assert await store.alist_namespaces() == []

    async def test_tuples_and_texts_with_a_class_are_json(self, store: SharedStore) -> None:
        class Colour(StrEnum):
            RED = "red"

        await store.aput(("a",), "k", {"t": (1, (2,)), "c": Colour.RED})
        item = await store.aget(("a",), "k")
        assert item is not None
        assert item.value == {"t": [1, [2]], "c": "red"}

    @pytest.mark.parametrize("value", [*BAD_VALUES, {"v": datetime.now(UTC)}, {"v": uuid.uuid4()}])
    async def test_what_is_not_json_is_refused(self, store: SharedStore, value: Any) -> None:
        with pytest.raises(ValueError):  # noqa: PT011  # the words are free
            await store.aput(("a",), "k", value)
        assert await store.asearch(()) == []

    async def test_values_have_a_limit(self, store: SharedStore) -> None:
        limit = store._max_document_bytes
        with pytest.raises(ValueError, match="bytes"):
            await store.aput(("a",), "k", {"v": "x" * limit})
        await store.aput(("a",), "k", {"v": "x" * (limit - 100)})
        assert await store.acount() == 1

    async def test_a_value_that_holds_itself_is_refused(self, store: SharedStore) -> None:
        value: dict[str, Any] = {}
        value["self"] = value
        with pytest.raises(ValueError):  # noqa: PT011  # the words are free
            await store.aput(("a",), "k", value)

    async def test_items_are_the_callers_own(self, store: SharedStore) -> None:
        value = {"list": [1]}
        await store.aput(("a",), "k", value)
        value["list"].append(2)
        first, second = await asyncio.gather(store.aget(("a",), "k"), store.aget(("a",), "k"))
        assert first is not None
        assert second is not None
        first.value["list"].append(3)
        assert second.value == {"list": [1]}
        [found] = await store.asearch(("a",))
        assert found.value == {"list": [1]}

    async def test_every_label_is_literal(self, store: SharedStore) -> None:
        for label in HOSTILE_LABELS:
            await store.aput(("p", label), "k", {"label": label})
        for label in HOSTILE_LABELS:
            item = await store.aget(("p", label), "k")
            assert item is not None
            assert item.value == {"label": label}
            assert [found.value for found in await store.asearch(("p", label))] == [{"label": label}]
            assert await store.acount(("p", label)) == 1
        assert await store.acount(("p",)) == len(HOSTILE_LABELS)

    async def test_every_key_is_literal(self, store: SharedStore) -> None:
        for key in HOSTILE_KEYS:
            await store.aput(("p",), key, {"key": key})
        for key in HOSTILE_KEYS:
            item = await store.aget(("p",), key)
            assert item is not None
            assert (item.key, item.value) == (key, {"key": key})
        assert await store.acount() == len(HOSTILE_KEYS)

    @pytest.mark.parametrize("namespace", BAD_NAMESPACES, ids=repr)
    async def test_bad_namespaces_are_refused_everywhere(self, store: SharedStore, namespace: Any) -> None:
        calls = (
            lambda: store.aget(namespace, "k"),
            lambda: store.aget_versioned(namespace, "k"),
            lambda: store.aput(namespace, "k", {}),
            lambda: store.adelete(namespace, "k"),
            lambda: store.asearch(namespace),
            lambda: store.acount(namespace),
            lambda: store.aupdate(namespace, "k", lambda _: {}),
            lambda: store.adelete_namespace(namespace),
            lambda: store.abatch([GetOp(namespace, "k")]),
            lambda: store.abatch([PutOp(namespace, "k", {})]),
            lambda: store.abatch([SearchOp(namespace)]),
        )
        for call in calls:
            with pytest.raises(InvalidNamespaceError):
                await call()

    async def test_nothing_is_put_without_a_namespace_or_into_langgraphs(self, store: SharedStore) -> None:
        for namespace in ((), ("langgraph",), ("langgraph", "x")):
            with pytest.raises(InvalidNamespaceError):
                await store.aput(namespace, "k", {})
            with pytest.raises(InvalidNamespaceError):
                await store.abatch([PutOp(namespace, "k", {})])
        assert await store.aget(("langgraph",), "k") is None

    @pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: repr(key)[:20])
    async def test_bad_keys_are_refused(self, store: SharedStore, key: str) -> None:
        for call in (store.aget(("a",), key), store.aput(("a",), key, {}), store.adelete(("a",), key)):
            with pytest.raises(ValueError):  # noqa: PT011  # the words are free
                await call

    async def test_a_put_replaces_the_whole_value(self, store: SharedStore) -> None:
        """However alike they are."""
        alike: tuple[dict[str, Any], ...] = (
            {"a": 1, "b": None},
            {"a": 1, "c": None},
            {"a": 1.0, "c": None},
            {"a": True, "c": None},
            {"in": {"a": 1}},
            {"in": {"b": 1}},
            {"in": [{"a": 1}]},
            {"in": [{"b": 1}]},
            {},
        )
        for value in alike:
            await store.aput(("a",), "k", value)
            item = await store.aget(("a",), "k")
            assert item is not None
            assert item.value == value
            assert types_of(item.value) == types_of(value)

    async def test_stamps(self, store: SharedStore) -> None:
        before = datetime.now(UTC)
        await store.aput(("a",), "k", {"n": 1})
        first = await store.aget(("a",), "k")
        await store.aput(("a",), "k", {"n": 2})
        second = await store.aget(("a",), "k")
        assert first is not None
        assert second is not None
        assert first.created_at.tzinfo is UTC
        assert first.updated_at.tzinfo is UTC
        assert first.created_at == first.updated_at == second.created_at
        assert second.updated_at > second.created_at
        assert abs(first.created_at - before) < timedelta(minutes=5)

    async def test_a_read_changes_no_stamp(self, store: SharedStore) -> None:
        await store.aput(("a",), "k", {}, ttl=5)
        first = await store.aget(("a",), "k")
        await store.asearch(("a",))
        assert await store.aget(("a",), "k") == first

    async def test_what_is_deleted_is_gone(self, store: SharedStore, other: SharedStore) -> None:
        await store.aput(("a",), "k", {"n": 1})
        first = await store.aget(("a",), "k")
        await other.adelete(("a",), "k")
        await store.adelete(("a",), "k")
        assert await store.aget(("a",), "k") is None
        assert await store.asearch(()) == []
        assert await store.alist_namespaces() == []
        await store.aput(("a",), "k", {"n": 1})
        again = await store.aget(("a",), "k")
        assert first is not None
        assert again is not None
        assert again.created_at > first.created_at

    async def test_a_namespace_is_deleted_with_what_is_below_it(self, store: SharedStore) -> None:
        for namespace in (("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("a-b",), ("b", "a")):
            await store.aput(namespace, "k", {})
            await store.aput(namespace, "l", {})
        assert await store.adelete_namespace(("a",)) == 6
        assert await store.adelete_namespace(("a",)) == 0
        assert await store.alist_namespaces() == [("a-b",), ("ab",), ("b", "a")]
        with pytest.raises(ValueError, match="label"):
            await store.adelete_namespace(())
        assert await store.acount() == 6

    async def test_conditions_of_a_list_have_a_bound(self, store: SharedStore) -> None:
        """Up to a size that is the same everywhere, and told."""
        await store.aput(("a", "b"), "k", {})
        most = [MatchCondition("prefix", ("*", "b"))] * 5_000
        [found] = await store.abatch([ListNamespacesOp(tuple(most))])
        assert found == [("a", "b")]
        with pytest.raises(ValueError, match="10000 labels"):
            await store.abatch([ListNamespacesOp((*most, MatchCondition("suffix", ("b",))))])
