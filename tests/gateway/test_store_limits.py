"""What our stores add at the store's routes: expiry, bounds, and a database that is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.store import SqliteStore
from gateway.serving import IN_MEMORY, by_header, in_process, official
from waiting import eventually

pytestmark = pytest.mark.anyio


def _letters(texts: list[str]) -> list[list[float]]:
    return [[float(text.count(letter)) + 0.01 for letter in "abc"] for text in texts]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    index: Any = {"dims": 3, "embed": _letters, "fields": ["text"]}
    ttl: Any = {"omit_expired": True, "default_ttl": 60.0}
    async with SqliteStore(tmp_path / "store.db", index=index, ttl=ttl) as store:
        await store.asetup()
        yield store


@pytest.fixture
async def replica(store: SqliteStore) -> AsyncIterator[Replica]:
    async with open_replica(AppConfig.from_mapping(IN_MEMORY), store=store) as replica:
        yield replica


@pytest.fixture
def app(replica: Replica) -> Any:
    return create_app(replica, {}, authenticate=by_header)


async def test_the_best_matches_come_first_with_their_score(app: Any) -> None:
    async with official(app, "u") as client, official(app, "v") as other:
        for key, text in (("a", "aaa"), ("b", "abb"), ("c", "ccc")):
            await client.store.put_item(["docs"], key, {"text": text})
        await client.store.put_item(["docs"], "hidden", {"text": "aaa"}, index=False)
        await client.store.put_item(["docs"], "title", {"title": "bbb"}, index=["title"])
        await other.store.put_item(["docs"], "k", {"text": "aaa"})
        found = (await client.store.search_items(["docs"], query="aa"))["items"]
        scores = {item["key"]: item.get("score") for item in found}
        assert list(scores) == ["a", "b", "title", "c", "hidden"]
        assert scores["a"] == pytest.approx(1.0, abs=0.01)
        assert scores["hidden"] is None


async def test_items_expire(app: Any, store: SqliteStore) -> None:
    async with in_process(app, "u") as client:
        for key, ttl in (("soon", {"ttl": 0.0005}), ("never", {"ttl": None}), ("default", {})):
            body: dict[str, Any] = {"namespace": ["a"], "key": key, "value": {}, **ttl}
            assert (await client.put("/store/items", json=body)).status_code == 204

        async def keys() -> list[str]:
            items = (await client.post("/store/items/search", json={"refresh_ttl": False})).json()["items"]
            return sorted(item["key"] for item in items)

        async def is_over() -> bool:
            return await keys() == ["default", "never"]

        await eventually(is_over, what="the end of what lives 30 ms")
        gone = await client.get("/store/items", params={"namespace": "a", "key": "soon", "refresh_ttl": "true"})
        assert gone.json() is None
        wrong = await client.get("/store/items", params={"namespace": "a", "key": "soon", "refresh_ttl": "maybe"})
        assert wrong.status_code == 422


async def test_a_store_that_knows_no_expiry_says_so() -> None:
    config = AppConfig.from_mapping(IN_MEMORY)
    async with open_replica(config) as replica, in_process(create_app(replica, {})) as client:
        body = {"namespace": ["a"], "key": "k", "value": {}}
        refused = await client.put("/store/items", json={**body, "ttl": 1})
        assert (refused.status_code, "TTL is not supported" in refused.json()["detail"]) == (422, True)
        assert (await client.put("/store/items", json=body)).status_code == 204


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"key": "k" * 1025}, 422),
        ({"key": "\0"}, 422),
        ({"value": {"k": "\0"}}, 422),
        ({"value": {"\0": 1}}, 422),
        ({"namespace": ["\0"]}, 400),
        ({"namespace": ["n" * 1025]}, 400),
        ({"namespace": ["é"] * 400}, 400),
        ({"ttl": 1e300}, 204),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_the_store_does_not_take(app: Any, wrong: dict[str, Any], status: int) -> None:
    async with in_process(app, "u") as client:
        answer = await client.put("/store/items", json={"namespace": ["a"], "key": "k", "value": {}, **wrong})
        assert answer.status_code == status, answer.text
        assert len((await client.post("/store/items/search", json={})).json()["items"]) == (status == 204)


async def test_a_body_that_is_too_large_is_413(app: Any, replica: Replica) -> None:
    size = replica.config.gateway.max_body_bytes
    async with in_process(app, "u") as client:
        answer = await client.put("/store/items", json={"namespace": ["a"], "key": "k", "value": {"v": "x" * size}})
        assert answer.status_code == 413


async def test_a_database_that_is_away_is_503(app: Any, store: SqliteStore) -> None:
    await store.aclose()
    place = {"namespace": ["a"], "key": "k"}
    async with in_process(app, "u") as client:
        answers = [
            await client.put("/store/items", json={**place, "value": {}}),
            await client.get("/store/items", params={"namespace": "a", "key": "k"}),
            await client.request("DELETE", "/store/items", json=place),
            await client.post("/store/items/search", json={}),
            await client.post("/store/namespaces", json={}),
        ]
    assert [answer.status_code for answer in answers] == [503] * 5
