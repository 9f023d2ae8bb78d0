"""Versions: conditional writes, updates, and views."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, PutOp, SearchOp

from ..errors import StoreUnavailableError, VersionConflictError
from ..store.base import SharedStore
from ..store.labels import decode_label, encode_label
from ..store.values import VersionedItem
from ._store_common import HOSTILE_LABELS, BuildStore, StoreFixtures, in_threads, keys_of

PLACE = (("a", "b"), "k")


async def version_of(store: SharedStore) -> int:
    item = await store.aget_versioned(*PLACE)
    return 0 if item is None else item.version


class VersionContract(StoreFixtures):
    async def test_versions_grow_and_are_never_used_again(self, store: SharedStore) -> None:
        seen = []
        for n in range(3):
            await store.aput(*PLACE, {"n": n})
            seen.append(await version_of(store))
            seen.append(await store.aput(*PLACE, {"n": n}, if_version=seen[-1]) or 0)
            await store.adelete(*PLACE)
        assert seen == sorted(set(seen))
        assert all(type(version) is int and version > 0 for version in seen)

    async def test_an_unconditional_put_returns_nothing(self, store: SharedStore) -> None:
        assert await store.aput(*PLACE, {}) is None
        item = await store.aget_versioned(*PLACE)
        assert type(item) is VersionedItem
        assert (item.namespace, item.key, item.value) == (*PLACE, {})
        assert await store.aget_versioned(("a",), "k") is None

    async def test_zero_only_creates(self, store: SharedStore) -> None:
        version = await store.aput(*PLACE, {"n": 1}, if_version=0)
        assert version == await version_of(store)
        with pytest.raises(VersionConflictError) as caught:
            await store.aput(*PLACE, {"n": 2}, if_version=0)
        error = caught.value
        assert (error.namespace, error.key, error.expected, error.current) == (*PLACE, 0, version)  # type: ignore[attr-defined]  # set by keyword
        item = await store.aget(*PLACE)
        assert item is not None
        assert item.value == {"n": 1}

    async def test_only_over_the_version(self, store: SharedStore, other: SharedStore) -> None:
        first = await store.aput(*PLACE, {"n": 1}, if_version=0)
        second = await other.aput(*PLACE, {"n": 2}, if_version=first)
        assert first is not None
        assert second is not None
        assert second > first
        for stale in (first, second + 1000, 2**62):
            with pytest.raises(VersionConflictError) as caught:
                await store.aput(*PLACE, {"n": 3}, if_version=stale)
            assert caught.value.current == second
            with pytest.raises(VersionConflictError):
                await store.adelete(*PLACE, if_version=stale)
        await store.adelete(*PLACE, if_version=second)
        for call in (store.aput(*PLACE, {}, if_version=second), store.adelete(*PLACE, if_version=second)):
            with pytest.raises(VersionConflictError) as caught:
                await call
            assert caught.value.current == 0
        assert await store.aget(*PLACE) is None

    async def test_deleting_what_should_be_absent(self, store: SharedStore) -> None:
        await store.adelete(*PLACE, if_version=0)
        await store.aput(*PLACE, {})
        with pytest.raises(VersionConflictError):
            await store.adelete(*PLACE, if_version=0)

    @pytest.mark.parametrize("version", [-1, True, False, 1.0, "1"])
    async def test_bad_versions_are_refused(self, store: SharedStore, version: Any) -> None:
        for call in (store.aput(*PLACE, {}, if_version=version), store.adelete(*PLACE, if_version=version)):
            with pytest.raises(ValueError, match="if_version"):
                await call
        assert await store.aget(*PLACE) is None

    async def test_a_conditional_put_keeps_created_at(self, store: SharedStore) -> None:
        version = await store.aput(*PLACE, {"n": 1}, if_version=0)
        first = await store.aget(*PLACE)
        await store.aput(*PLACE, {"n": 2}, if_version=version)
        second = await store.aget(*PLACE)
        assert first is not None
        assert second is not None
        assert second.created_at == first.created_at == first.updated_at < second.updated_at

    async def test_one_writer_wins(self, store: SharedStore, other: SharedStore) -> None:
        version = 0
        for _ in range(5):
            attempts = [
                replica.aput(*PLACE, {"writer": n}, if_version=version) for n, replica in enumerate([store, other] * 4)
            ]
            outcomes = await asyncio.gather(*attempts, return_exceptions=True)
            won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
            lost = [outcome for outcome in outcomes if isinstance(outcome, VersionConflictError)]
            assert (len(won), len(lost)) == (1, 7), outcomes
            item = await store.aget_versioned(*PLACE)
            assert item is not None
            assert item.value == {"writer": won[0]}
            version = item.version

    async def test_an_update_makes_changes_and_deletes(self, store: SharedStore) -> None:
        seen: list[Any] = []

        def count(current: dict[str, Any] | None) -> dict[str, Any]:
            seen.append(current)
            return {"n": (current or {"n": 0})["n"] + 1}

        async def count_later(current: dict[str, Any] | None) -> dict[str, Any]:
            await asyncio.sleep(0)
            return count(current)

        first = await store.aupdate(*PLACE, count)
        second = await store.aupdate(*PLACE, count_later)
        assert first is not None
        assert second is not None
        assert seen == [None, {"n": 1}]
        assert (second.namespace, second.key, second.value) == (*PLACE, {"n": 2})
        assert second.created_at == first.created_at
        assert second == await store.aget_versioned(*PLACE)
        assert await store.aupdate(*PLACE, lambda _: None) is None
        assert await store.aget(*PLACE) is None
        assert await store.aupdate(*PLACE, lambda _: None) is None

    async def test_an_equal_value_writes_nothing(self, store: SharedStore) -> None:
        await store.aput(*PLACE, {"n": 1, "l": [1, {"x": None}]})
        before = await store.aget_versioned(*PLACE)

        def same(current: dict[str, Any] | None) -> dict[str, Any] | None:
            return current

        assert await store.aupdate(*PLACE, same) == before
        assert await store.aget_versioned(*PLACE) == before
        changed = await store.aupdate(*PLACE, lambda _: {"n": True, "l": [1, {"x": None}]})
        assert before is not None
        assert changed is not None
        assert changed.version > before.version

    async def test_an_update_may_change_what_it_is_given(self, store: SharedStore) -> None:
        def append(current: dict[str, Any] | None) -> dict[str, Any]:
            value = current if current is not None else {"list": []}
            value["list"].append(len(value["list"]))
            return value

        for _ in range(3):
            await store.aupdate(*PLACE, append)
        item = await store.aget(*PLACE)
        assert item is not None
        assert item.value == {"list": [0, 1, 2]}

    async def test_what_an_update_raises_comes_out(self, store: SharedStore) -> None:
        error = VersionConflictError("mine", current=7)

        def fail(current: dict[str, Any] | None) -> dict[str, Any]:
            raise error

        with pytest.raises(VersionConflictError) as caught:
            await store.aupdate(*PLACE, fail)
        assert caught.value is error
        with pytest.raises(ValueError):  # noqa: PT011  # the words are free
            await store.aupdate(*PLACE, lambda _: {"v": {1}})
        with pytest.raises(ValueError, match="max_attempts"):
            await store.aupdate(*PLACE, lambda _: {}, max_attempts=0)
        assert await store.aget(*PLACE) is None

    async def test_updates_lose_nothing(self, store: SharedStore, other: SharedStore) -> None:
        def count(current: dict[str, Any] | None) -> dict[str, Any]:
            return {"n": (current or {"n": 0})["n"] + 1}

        async def work(replica: SharedStore) -> None:
            for _ in range(10):
                await replica.aupdate(*PLACE, count, max_attempts=1000)

        await asyncio.gather(*(work(replica) for replica in (store, other, store, other)))
        item = await store.aget(*PLACE)
        assert item is not None
        assert item.value == {"n": 40}

    async def test_an_update_gives_up(self, store: SharedStore, other: SharedStore) -> None:
        calls = 0

        async def overtaken(current: dict[str, Any] | None) -> dict[str, Any]:
            nonlocal calls
            calls += 1
            await other.aput(*PLACE, {"theirs": calls})
            return {"ours": calls}

        with pytest.raises(VersionConflictError):
            await store.aupdate(*PLACE, overtaken, max_attempts=3)
        assert calls == 3
        item = await store.aget(*PLACE)
        assert item is not None
        assert item.value == {"theirs": 3}


class ScopeContract(StoreFixtures):
    async def test_a_view_shows_and_touches_its_own(self, store: SharedStore) -> None:
        ann, bob = store.scoped("users", "ann"), store.scoped("users", "bob")
        await ann.aput(("m",), "k", {"of": "ann"})
        await bob.aput(("m",), "k", {"of": "bob"})
        await store.aput(("users", "ann-b"), "k", {})
        item = await store.aget(("users", "ann", "m"), "k")
        assert item is not None
        assert item.value == {"of": "ann"}
        own = await ann.aget_versioned(("m",), "k")
        assert own is not None
        assert (own.namespace, own.value) == (("m",), {"of": "ann"})
        assert [(found.namespace, found.value) for found in await ann.asearch(())] == [(("m",), {"of": "ann"})]
        assert await ann.alist_namespaces() == [("m",)]
        assert await ann.acount() == 1
        results = await ann.abatch([GetOp(("m",), "k"), SearchOp(()), ListNamespacesOp(), PutOp(("n",), "k", {})])
        got, found, namespaces, _ = results
        assert got.namespace == ("m",)  # type: ignore[union-attr]  # an item
        assert [one.namespace for one in found] == [("m",)]  # type: ignore[union-attr]  # items
        assert namespaces == [("m",)]
        assert await ann.adelete_namespace(("m",)) == 1
        assert await ann.adelete_namespace(("n",)) == 1
        assert await store.acount() == 2

    async def test_views_nest(self, store: SharedStore) -> None:
        inner = store.scoped("a").scoped("b", "c")
        await inner.aput(("d",), "k", {})
        assert await store.alist_namespaces() == [("a", "b", "c", "d")]
        assert await inner.alist_namespaces(max_depth=1) == [("d",)]
        assert await store.scoped("a").alist_namespaces(max_depth=2) == [("b", "c")]

    async def test_conditions_stay_inside(self, store: SharedStore) -> None:
        await store.aput(("a", "b", "c"), "k", {})
        view = store.scoped("a", "b")
        assert await view.alist_namespaces(suffix=("c",)) == [("c",)]
        for outside in (("b", "c"), ("*", "c")):
            assert await view.alist_namespaces(suffix=outside) == []
        for label in ("a", "b"):
            assert await view.alist_namespaces(prefix=(label,)) == []

    async def test_conflicts_name_the_views_namespace(self, store: SharedStore) -> None:
        view = store.scoped("a")
        await view.aput(("b",), "k", {})
        with pytest.raises(VersionConflictError) as caught:
            await view.aput(("b",), "k", {}, if_version=0)
        assert caught.value.namespace == ("b",)  # type: ignore[attr-defined]  # set by keyword

    async def test_items_right_in_the_scope(self, store: SharedStore) -> None:
        await store.aput(("a",), "k", {"n": 1})
        view = store.scoped("a")
        item = await view.aget((), "k")
        assert item is not None
        assert item.namespace == ()
        assert await view.alist_namespaces() == [()]
        with pytest.raises(InvalidNamespaceError):
            await view.aput((), "k", {})

    async def test_bad_labels_are_refused(self, store: SharedStore) -> None:
        for labels in (("",), ("a.b",), ("\x00",), ("x" * 1025,)):
            with pytest.raises(InvalidNamespaceError):
                store.scoped(*labels)
        with pytest.raises(InvalidNamespaceError):
            await store.scoped("x" * 1000).aput(("y" * 50,), "k", {})

    async def test_any_text_is_a_label(self, store: SharedStore) -> None:
        texts = ("", "~", "a.b", "a@b.c", "é\x00\U0001f98c", "~2E", " ", *HOSTILE_LABELS)
        for text in texts:
            await store.scoped("users", encode_label(text)).aput(("m",), "k", {"of": repr(text)})
            assert decode_label(encode_label(text)) == text
        assert await store.acount() == len(set(texts))
        assert encode_label("Ab_9-z") == "Ab_9-z"
        for label in ("a.b", "~2e", "~", "~41", "é"):
            if label != "~":
                with pytest.raises(ValueError, match="encode_label"):
                    decode_label(label)

    async def test_closing_a_view_closes_nothing(self, build: BuildStore) -> None:
        async with build() as store:
            await store.asetup()
            async with store.scoped("a") as view:
                await view.aput(("b",), "k", {})
            assert await store.acount() == 1
        with pytest.raises(StoreUnavailableError):
            await view.acount()


class SyncContract(StoreFixtures):
    """The sync twins, in a thread beside the loop."""

    async def test_twins(self, store: SharedStore) -> None:
        def work() -> None:
            assert store.put(*PLACE, {"n": 1}) is None
            version = store.put(*PLACE, {"n": 2}, if_version=store.get_versioned(*PLACE).version)  # type: ignore[union-attr]  # it is there
            item = store.get(*PLACE)
            assert item is not None
            assert item.value == {"n": 2}
            assert [found.key for found in store.search(("a",), filter={"n": 2})] == ["k"]
            assert store.list_namespaces() == [("a", "b")]
            assert store.count() == 1
            updated = store.update(*PLACE, lambda value: {"n": (value or {})["n"] + 1})
            assert updated is not None
            assert updated.version > (version or 0)
            assert [one is None for one in store.batch([GetOp(*PLACE), GetOp(("a",), "k")])] == [False, True]
            assert store.sweep_ttl() == 0
            store.delete(*PLACE, if_version=updated.version)
            store.put(*PLACE, {})
            assert store.delete_namespace(("a",)) == 1

        await asyncio.to_thread(work)
        assert await store.acount() == 0

    async def test_sync_and_async_see_each_other(self, store: SharedStore) -> None:
        for n in range(5):
            await asyncio.to_thread(store.put, *PLACE, {"n": n})
            item = await store.aget(*PLACE)
            assert item is not None
            assert item.value == {"n": n}
            await store.aput(*PLACE, {"n": -n})
            got = await asyncio.to_thread(store.get, *PLACE)
            assert got is not None
            assert got.value == {"n": -n}

    async def test_on_the_thread_of_a_running_loop_it_is_refused(self, store: SharedStore) -> None:
        for call in (
            lambda: store.get(*PLACE),
            lambda: store.put(*PLACE, {}),
            lambda: store.update(*PLACE, lambda _: {}),
            lambda: store.batch([]),
            store.close,
        ):
            with pytest.raises(asyncio.InvalidStateError):
                call()
        assert await store.acount() == 0

    async def test_many_threads(self, store: SharedStore) -> None:
        def work(n: int) -> int:
            for turn in range(5):
                store.update(*PLACE, lambda value: {"n": (value or {"n": 0})["n"] + 1}, max_attempts=1000)
                store.put(("own", str(n)), "k", {"turn": turn})
            return store.get(("own", str(n)), "k").value["turn"]  # type: ignore[union-attr,no-any-return]  # it is there

        results = await asyncio.to_thread(in_threads, *(partial(work, n) for n in range(4)))
        assert results == [4] * 4
        item = await store.aget(*PLACE)
        assert item is not None
        assert item.value == {"n": 20}

    async def test_a_plain_function_runs_on_the_callers_thread(self, store: SharedStore) -> None:
        def work() -> bool:
            updated = store.update(*PLACE, lambda _: {"thread": threading.get_ident()})
            return updated is not None and updated.value == {"thread": threading.get_ident()}

        assert await asyncio.to_thread(work)

    async def test_another_loop(self, store: SharedStore) -> None:
        async def work() -> None:
            await asyncio.gather(*(store.aput(("a",), str(n), {"n": n}) for n in range(10)))

        await asyncio.to_thread(asyncio.run, work())
        assert sorted(await keys_of(store, "a")) == sorted(map(str, range(10)))

    async def test_without_any_loop(self, build: BuildStore) -> None:
        def work() -> None:
            with build() as store:
                store.setup()
                store.setup()
                store.put(*PLACE, {"n": 1})
                assert store.count() == 1
            store.close()
            with pytest.raises(StoreUnavailableError):
                store.get(*PLACE)

        await asyncio.to_thread(work)
