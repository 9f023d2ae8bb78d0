"""The store through the official client: every user's items apart from all others'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import BaseStore

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.store import SharedStore, encode_label
from gateway.serving import IN_MEMORY, by_header, in_process, official

pytestmark = pytest.mark.anyio

ITEM_FIELDS = {"namespace", "key", "value", "created_at", "updated_at"}


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BaseStore]:
    """A store of each kind, with LangGraph's own as the one in memory."""
    config: dict[str, Any] = {"type": request.param}
    if request.param == "sqlite":
        config["connection_string"] = str(tmp_path / "store.db")
    if request.param == "postgres":
        config["connection_string"] = request.getfixturevalue("postgres_dsn")
        config["postgres_schema"] = request.getfixturevalue("postgres_schema")
    async with open_replica(AppConfig.from_mapping({**IN_MEMORY, "store": config})) as replica:
        yield replica.store


@pytest.fixture
async def kept(store: BaseStore) -> AsyncIterator[Replica]:
    """A replica on that store."""
    async with open_replica(AppConfig.from_mapping(IN_MEMORY), store=store) as replica:
        yield replica


@pytest.fixture
def app(kept: Replica) -> Any:
    return create_app(kept, {}, authenticate=by_header)


@pytest.fixture
def shared(kept: Replica) -> Any:
    return create_app(kept, {})


@pytest.mark.parametrize("user", ["u@x.y", None])
async def test_an_item_is_kept_found_and_deleted(kept: Replica, user: str | None) -> None:
    app = create_app(kept, {}, authenticate=by_header if user else None)
    value = {"text": "é \U0001f98c", "n": [1, 2.5, None, True], "deep": {"er": 2**53}}
    async with official(app, user) as client:
        assert await client.store.get_item(["docs", "a b"], "k") is None
        await client.store.put_item(["docs", "a b"], "k", value)
        item = await client.store.get_item(["docs", "a b"], "k")
        assert set(item) == ITEM_FIELDS
        assert (item["namespace"], item["key"], item["value"]) == (["docs", "a b"], "k", value)
        assert item["created_at"] <= item["updated_at"]
        await client.store.put_item(["docs", "a b"], "k", {"n": 2})
        assert (await client.store.search_items(["docs"]))["items"] == [
            {**await client.store.get_item(["docs", "a b"], "k"), "value": {"n": 2}, "score": None}
        ]
        await client.store.delete_item(["docs", "a b"], "k")
        await client.store.delete_item(["docs", "a b"], "k")
        assert await client.store.get_item(["docs", "a b"], "k") is None


async def test_nothing_is_null_with_200(app: Any) -> None:
    async with in_process(app, "u") as client:
        answer = await client.get("/store/items", params={"namespace": "a", "key": "k"})
        assert (answer.status_code, answer.content) == (200, b"null")


async def test_keys_are_any_text(app: Any) -> None:
    async with official(app, "u") as client:
        for key in ("", " ", "a.b", "%", "é\U0001f98c", "x&y=z", "/", "k" * 1024):
            await client.store.put_item(["a"], key, {"n": 1})
            assert (await client.store.get_item(["a"], key))["key"] == key
            await client.store.delete_item(["a"], key)
            assert await client.store.get_item(["a"], key) is None


async def test_search_filters_and_pages(app: Any, store: BaseStore) -> None:
    def in_order(found: str, keys: str) -> bool:
        """LangGraph's own store has an order of its own."""
        return found == keys if isinstance(store, SharedStore) else len(found) == len(keys)

    async with official(app, "u") as client:
        for number in range(5):
            await client.store.put_item(["docs", f"d{number % 2}"], str(number), {"n": number, "even": number % 2 == 0})
        searches: list[tuple[dict[str, Any], str]] = [
            ({}, "43210"),
            ({"limit": 2}, "43"),
            ({"limit": 2, "offset": 3}, "10"),
            ({"offset": 9}, ""),
            ({"filter": {"even": True}}, "420"),
            ({"filter": {"n": {"$gte": 3}}}, "43"),
        ]
        for query, keys in searches:
            found = (await client.store.search_items(["docs"], **query))["items"]
            assert in_order("".join(item["key"] for item in found), keys), query
        assert len((await client.store.search_items([]))["items"]) == 5
        assert (await client.store.search_items(["docs", "d1"]))["items"][0]["namespace"] == ["docs", "d1"]
        assert (await client.store.search_items(["doc"]))["items"] == []


async def test_namespaces_are_listed(app: Any) -> None:
    async with official(app, "u") as client:
        for namespace in (["a"], ["a", "b", "c"], ["a", "x", "c"], ["z", "c"]):
            await client.store.put_item(namespace, "k", {})
        listed: list[tuple[dict[str, Any], list[list[str]]]] = [
            ({}, [["a"], ["a", "b", "c"], ["a", "x", "c"], ["z", "c"]]),
            ({"prefix": ["a"]}, [["a"], ["a", "b", "c"], ["a", "x", "c"]]),
            ({"prefix": ["a", "*", "c"]}, [["a", "b", "c"], ["a", "x", "c"]]),
            ({"suffix": ["c"]}, [["a", "b", "c"], ["a", "x", "c"], ["z", "c"]]),
            ({"suffix": ["x", "c"], "prefix": ["a"]}, [["a", "x", "c"]]),
            ({"max_depth": 1}, [["a"], ["z"]]),
            ({"max_depth": 2, "prefix": ["a"]}, [["a"], ["a", "b"], ["a", "x"]]),
            ({"limit": 2, "offset": 1}, [["a", "b", "c"], ["a", "x", "c"]]),
        ]
        for query, expected in listed:
            found: Any = await client.store.list_namespaces(**query)
            assert found == {"namespaces": expected}, query


# Whose they are

USERS = ["alice", "bob", "a.b", "*", "users", "langgraph", "e/u", "%", "~", "x" * 200]


async def test_users_never_meet(app: Any, store: BaseStore) -> None:
    for user in USERS:
        async with official(app, user) as client:
            await client.store.put_item(["notes"], "k", {"of": user})
    for user in USERS:
        async with official(app, user) as client:
            assert (await client.store.get_item(["notes"], "k"))["value"] == {"of": user}
            assert [item["value"] for item in (await client.store.search_items([]))["items"]] == [{"of": user}]
            listed: Any = await client.store.list_namespaces()
            assert listed == {"namespaces": [["notes"]]}
            kept = await store.aget(("users", encode_label(user), "notes"), "k")
            assert kept is not None
            assert kept.value == {"of": user}


async def test_no_namespace_leads_to_anothers(app: Any, store: BaseStore) -> None:
    ways = (["users", "alice", "notes"], ["alice", "notes"], ["notes"], ["shared"], ["*", "notes"], ["%"], ["*"])
    await store.aput(("shared",), "k", {"secret": 1})
    async with official(app, "alice") as alice, official(app, "mallory") as mallory:
        await alice.store.put_item(["notes"], "k", {"secret": 1})
        for way in ways:
            queries: list[Any] = [
                {"prefix": way},
                {"suffix": way},
                {"prefix": way, "suffix": way},
                {"suffix": ["*"] * 3},
            ]
            for query in queries:
                listed: Any = await mallory.store.list_namespaces(**query)
                assert listed == {"namespaces": []}, query
        mine = await store.aget(("users", "alice", "notes"), "k")
        for way in ways:
            assert await mallory.store.get_item(way, "k") is None
            assert (await mallory.store.search_items(way))["items"] == []
            await mallory.store.put_item(way, "k", {"forged": 1})
            await mallory.store.delete_item(way, "k")
        assert await store.aget(("users", "alice", "notes"), "k") == mine
        assert await store.aget(("shared",), "k") is not None


async def test_a_suffix_is_not_found_in_the_scope(app: Any) -> None:
    async with official(app, "alice") as client:
        await client.store.put_item(["a"], "k", {})
        for suffix in (["alice", "a"], ["users", "alice", "a"], ["*", "a"], ["*", "*", "a"]):
            listed: Any = await client.store.list_namespaces(suffix=suffix)
            assert listed == {"namespaces": []}, suffix
        listed = await client.store.list_namespaces(suffix=["*"])
        assert listed == {"namespaces": [["a"]]}


async def test_a_user_sees_what_graphs_keep_for_them(app: Any, store: BaseStore) -> None:
    await store.aput(("users", "alice", "facts"), "k", {"n": 1})
    async with official(app, "alice") as client:
        assert (await client.store.get_item(["facts"], "k"))["value"] == {"n": 1}


async def test_without_authenticate_namespaces_are_as_they_are(shared: Any, store: BaseStore) -> None:
    async with official(shared) as client:
        await client.store.put_item(["a", "b"], "k", {"n": 1})
        kept = await store.aget(("a", "b"), "k")
        assert kept is not None
        assert kept.value == {"n": 1}


# What is refused


@pytest.fixture
def plain(replica: Replica) -> Any:
    return create_app(replica, {}, authenticate=by_header)


@pytest.mark.parametrize("user", ["u", None])
@pytest.mark.parametrize(
    ("namespace", "status"),
    [
        ([], 400),
        (["a", ""], 422),
        (["a.b"], 422),
        ([".."], 422),
        (["a", 7], 422),
        ("a", 422),
        (None, 422),
        ({"a": 1}, 422),
        (["langgraph"], 400),
        (["langgraph", "x"], 400),
    ],
    ids=str,
)
async def test_a_namespace_that_cannot_be(replica: Replica, user: str | None, namespace: Any, status: int) -> None:
    app = create_app(replica, {}, authenticate=by_header if user else None)
    place = {"namespace": namespace, "key": "k"}
    async with in_process(app, user) as client:
        answer = await client.put("/store/items", json={**place, "value": {}})
        assert answer.status_code == status, answer.text
        assert "namespace" in answer.json()["detail"]
        if status == 422 or not namespace:
            assert (await client.request("DELETE", "/store/items", json=place)).status_code == status
        assert (await client.post("/store/items/search", json={})).json() == {"items": []}


@pytest.mark.parametrize(("namespace", "status"), [("", 400), ("a..b", 422), (".", 422), (".a", 422), (None, 422)])
async def test_a_namespace_in_a_query_that_cannot_be(plain: Any, namespace: str | None, status: int) -> None:
    async with in_process(plain, "u") as client:
        query = {"key": "k"} if namespace is None else {"key": "k", "namespace": namespace}
        answer = await client.get("/store/items", params=query)
        assert answer.status_code == status, answer.text
        assert (await client.get("/store/items", params={"namespace": "a"})).status_code == 422


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": None},
        {"key": 7},
        {"value": None},
        {"value": []},
        {"value": "v"},
        {"value": {"n": 2**63}},
        {"index": True},
        {"index": "n"},
        {"index": [7]},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": "1"},
        {"ttl": True},
    ],
    ids=str,
)
async def test_an_item_that_cannot_be(plain: Any, wrong: dict[str, Any]) -> None:
    async with in_process(plain, "u") as client:
        answer = await client.put("/store/items", json={"namespace": ["a"], "key": "k", "value": {}, **wrong})
        assert answer.status_code == 422, answer.text
        assert (await client.post("/store/items/search", json={})).json() == {"items": []}


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("items/search", {"namespace_prefix": ["a", ""]}),
        ("items/search", {"namespace_prefix": "a"}),
        ("items/search", {"filter": []}),
        ("items/search", {"filter": {"n": {"$near": 1}}}),
        ("items/search", {"limit": 0}),
        ("items/search", {"limit": 1001}),
        ("items/search", {"offset": -1}),
        ("items/search", {"query": 7}),
        ("items/search", {"query": "\0"}),
        ("items/search", {"refresh_ttl": "yes"}),
        ("items/search", {"filter": {"n": {"$in": list(range(5001))}}}),
        ("items/search", {"filter": {str(number): 1 for number in range(5001)}}),
        ("namespaces", {"prefix": ["a.b"]}),
        ("namespaces", {"suffix": [""]}),
        ("namespaces", {"max_depth": 0}),
        ("namespaces", {"suffix": ["*"] * 513}),
        ("namespaces", {"limit": 1001}),
        ("namespaces", {"offset": "1"}),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_search_that_cannot_be(plain: Any, path: str, wrong: dict[str, Any]) -> None:
    async with in_process(plain, "u") as client:
        await client.put("/store/items", json={"namespace": ["a"], "key": "k", "value": {"n": 1}})
        answer = await client.post(f"/store/{path}", json=wrong)
        assert answer.status_code == 422, answer.text
