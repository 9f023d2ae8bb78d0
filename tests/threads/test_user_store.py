"""The key-value API for the threads of a user."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deerflow_replica.errors import ThreadOwnershipError
from deerflow_replica.threads import InMemoryThreadMap, ThreadMappingItem, UserThreadStore

pytestmark = pytest.mark.anyio

ANN, BOB = ("user_threads", "ann"), ("user_threads", "bob")


@pytest.fixture
def threads() -> InMemoryThreadMap:
    return InMemoryThreadMap()


@pytest.fixture
def store(threads: InMemoryThreadMap) -> UserThreadStore:
    return UserThreadStore(threads)


async def test_a_value_comes_back(store: UserThreadStore, threads: InMemoryThreadMap) -> None:
    value = {"title": "Plans", "status": "busy", "updated_at": 12.5, "agent": "lead", "tags": ["a", {"b": None}]}
    await store.aput(ANN, "t", value)
    record = await threads.get("t", user_id="ann")
    assert record is not None
    assert (record.display_name, record.status) == ("Plans", "busy")
    assert record.metadata == {"agent": "lead", "tags": ["a", {"b": None}]}
    told = record.updated_at.isoformat()
    assert await store.aget(ANN, "t", refresh_ttl=True) == ThreadMappingItem("t", {**value, "updated_at": told})


async def test_putting_again_replaces_all_of_it(store: UserThreadStore, threads: InMemoryThreadMap) -> None:
    await store.aput(ANN, "t", {"title": "Plans", "status": "busy", "a": 1, "b": 2})
    before = await threads.get("t", user_id="ann")
    await store.aput(ANN, "t", {"b": 3}, index=["b"])
    item, after = await store.aget(ANN, "t"), await threads.get("t", user_id="ann")
    assert item is not None
    assert before is not None
    assert after is not None
    assert item.value == {"b": 3, "status": "idle", "updated_at": after.updated_at.isoformat()}
    assert (after.version, after.created_at) == (2, before.created_at)
    assert after.updated_at > before.updated_at


async def test_a_foreign_key_does_not_exist(store: UserThreadStore, threads: InMemoryThreadMap) -> None:
    await store.aput(ANN, "t", {"a": 1})
    assert await store.aget(BOB, "t") is None
    assert await store.asearch(BOB) == []
    await store.adelete(BOB, "t")
    with pytest.raises(ThreadOwnershipError) as refused:
        await store.aput(BOB, "t", {"a": 2})
    assert refused.value.thread_id == "t"
    item = await store.aget(ANN, "t")
    assert item is not None
    assert item.value["a"] == 1
    await store.adelete(ANN, "t")
    assert await store.aget(ANN, "t") is None
    with pytest.raises(ThreadOwnershipError):
        await store.aput(BOB, "t", {})
    assert await threads.count("bob") == 0


async def test_search(store: UserThreadStore) -> None:
    for number in range(12):
        await store.aput(
            ANN, f"t{number:02}", {"status": "busy" if number % 4 == 0 else "idle", "odd": number % 2 == 1}
        )
    await store.aput(BOB, "hers", {})

    async def keys(**query: Any) -> list[str]:
        return [item.key for item in await store.asearch(ANN, **query)]

    newest = [f"t{number:02}" for number in range(11, -1, -1)]
    assert await keys() == newest[:10]
    assert await keys(limit=100) == newest
    assert await keys(limit=2, offset=3, query="anything", refresh_ttl=False) == newest[3:5]
    assert await keys(filter={"status": "busy"}) == ["t08", "t04", "t00"]
    assert await keys(filter={"status": "idle", "odd": False}) == ["t10", "t06", "t02"]
    assert await keys(filter={"odd": 1}) == []


@pytest.mark.parametrize(
    "namespace",
    [("user_threads",), ("user_threads", "a", "b"), ("threads", "a"), (), ("user_threads", 7), "user_threads"],
)
async def test_another_namespace(store: UserThreadStore, namespace: Any) -> None:
    calls = (
        store.aget(namespace, "t"),
        store.aput(namespace, "t", {}),
        store.asearch(namespace),
        store.adelete(namespace, "t"),
    )
    for call in calls:
        with pytest.raises(ValueError, match="namespace"):
            await call


@pytest.mark.parametrize("value", [None, "text", ["a"], 7], ids=repr)
async def test_a_value_that_is_no_mapping(store: UserThreadStore, threads: InMemoryThreadMap, value: Any) -> None:
    with pytest.raises(ValueError, match="mapping"):
        await store.aput(ANN, "t", value)
    assert await threads.owner_of("t") is None


@pytest.mark.parametrize("field", [{"title": 7}, {"status": ""}, {"status": 7}, {"a": float("nan")}], ids=repr)
async def test_bad_fields(store: UserThreadStore, threads: InMemoryThreadMap, field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"display_name|status|metadata"):
        await store.aput(ANN, "t", field)
    assert await threads.owner_of("t") is None


async def test_puts_at_the_same_time_are_whole(store: UserThreadStore) -> None:
    await asyncio.gather(*(store.aput(ANN, "t", {"title": str(n), f"k{n}": n}) for n in range(10)))
    item = await store.aget(ANN, "t")
    assert item is not None
    number = int(item.value["title"])
    assert {key for key in item.value if key.startswith("k")} == {f"k{number}"}
