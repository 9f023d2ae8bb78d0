"""Ranked searches in PostgreSQL: by vectors, by words, and by both."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from langgraph.store.base import GetOp, PutOp, SearchOp
from psycopg.conninfo import make_conninfo

from deerflow_replica.errors import ConfigError
from deerflow_replica.store import PostgresStore
from waiting import eventually

pytestmark = pytest.mark.anyio

A = ("a",)


class Embedder:
    """A text is "x y": a vector of these numbers. Counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        if any("bad" in text for text in texts):
            raise RuntimeError("no such text")
        return [[float(part) for part in text.split()] for text in texts]


@pytest.fixture
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture
def index(embedder: Embedder, vectors: None) -> Any:
    return {"dims": 2, "embed": embedder, "fields": ["v"]}


def keys_and_scores(found: Sequence[Any]) -> list[tuple[str, float | None]]:
    return [(item.key, None if item.score is None else round(item.score, 6)) for item in found]


@pytest.mark.parametrize("kind", ["hnsw", "ivfflat", "flat"])
@pytest.mark.parametrize("vector_type", ["vector", "halfvec"])
@pytest.mark.parametrize("distance", ["cosine", "l2", "inner_product"])
async def test_scores(
    postgres_dsn: str, postgres_schema: str, index: Any, kind: str, vector_type: str, distance: str
) -> None:
    index |= {"distance_type": distance, "ann_index_config": {"kind": kind, "vector_type": vector_type}}
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()
        for key, vector in (("near", "1 0"), ("far", "0 2"), ("zero", "0 0"), ("none", None)):
            await store.aput(A, key, {"v": vector})
        found = keys_and_scores(await store.asearch(A, query="2 0"))
    expected = {
        "cosine": [("near", 1.0), ("zero", 0.0), ("far", 0.0), ("none", None)],
        "l2": [("near", -1.0), ("zero", -2.0), ("far", round(-math.sqrt(8), 6)), ("none", None)],
        "inner_product": [("near", 2.0), ("zero", 0.0), ("far", 0.0), ("none", None)],
    }
    assert found == expected[distance]


async def test_filters_namespaces_and_any_offset(postgres_dsn: str, postgres_schema: str, index: Any) -> None:
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()
        await store.abatch([PutOp(("a", str(n % 2)), f"{n:02}", {"v": f"1 {n}", "n": n % 3}) for n in range(20)])
        await store.abatch([PutOp(("ab",), "other", {"v": "1 0", "n": 1}), PutOp(A, "none", {"n": 1})])
        matching = [f"{n:02}" for n in range(20) if n % 3 == 1]
        whole = await store.asearch(A, query="1 0", filter={"n": 1}, limit=100)
        assert [item.key for item in whole] == [*matching, "none"]
        pages = [
            await store.asearch(A, query="1 0", filter={"n": 1}, limit=3, offset=start) for start in range(0, 9, 3)
        ]
        assert [item.key for page in pages for item in page] == [*matching, "none"]
        assert [item.key for item in await store.asearch(("a", "1"), query="1 0", limit=2)] == ["01", "03"]
        assert [item.key for item in await store.asearch((), query="1 0", limit=3)] == ["other", "00", "01"]
        assert await store.asearch(A, query="1 0", offset=100) == []
        for query in ("", None):
            assert {item.score for item in await store.asearch(A, query=query)} == {None}


async def test_an_item_is_found_once_by_its_best_vector(postgres_dsn: str, postgres_schema: str, index: Any) -> None:
    index["fields"] = ["many[*]", "v"]
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()
        await store.aput(A, "two", {"many": ["0 1", "1 0"], "v": "1 1"})
        await store.aput(A, "one", {"v": "1 1"})
        assert keys_and_scores(await store.asearch(A, query="1 0")) == [("two", 1.0), ("one", 0.707107)]


async def test_a_put_replaces_all_vectors(postgres_dsn: str, postgres_schema: str, index: Any) -> None:
    index["fields"] = ["v", "w"]
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()
        await store.aput(A, "k", {"v": "1 0", "w": "0 1"})
        await store.aput(A, "k", {"v": "1 0"})
        assert keys_and_scores(await store.asearch(A, query="0 1")) == [("k", 0.0)]
        await store.aupdate(A, "k", lambda _: {"v": "0 1"})
        assert keys_and_scores(await store.asearch(A, query="0 1")) == [("k", 1.0)]
        await store.aput(A, "k", {"v": "1 0"}, index=False)
        assert keys_and_scores(await store.asearch(A, query="0 1")) == [("k", None)]
        await store.aput(A, "k", {"x": "0 1"}, index=["x"])
        assert keys_and_scores(await store.asearch(A, query="0 1")) == [("k", 1.0)]
        await store.adelete(A, "k")
        with psycopg.connect(postgres_dsn) as connection:
            cursor = connection.execute(f"SELECT count(*) FROM {postgres_schema}.store_vectors".encode())
            assert cursor.fetchone() == (0,)


async def test_a_conditional_put_that_loses_leaves_the_vectors(
    postgres_dsn: str, postgres_schema: str, index: Any
) -> None:
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()
        version = await store.aput(A, "k", {"v": "1 0"}, if_version=0)
        outcomes = await asyncio.gather(
            *(store.aput(A, "k", {"v": f"{n} 1"}, if_version=version) for n in range(3)), return_exceptions=True
        )
        [won] = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, int)]
        assert keys_and_scores(await store.asearch(A, query=f"{won} 1")) == [("k", 1.0)]


async def test_texts_are_embedded_once_and_in_batches(
    postgres_dsn: str, postgres_schema: str, index: Any, embedder: Embedder
) -> None:
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()
        await store.abatch([PutOp(A, str(n), {"v": f"1 {n % 3}"}) for n in range(9)])
        assert [sorted(texts) for texts in embedder.asked] == [["1 0", "1 1", "1 2"]]
        embedder.asked.clear()
        found = await store.abatch([SearchOp(A, query="1 0"), SearchOp((), query="1 0"), GetOp(A, "1")])
        assert embedder.asked == [["1 0"]]
        assert len(found[0]) == 9  # type: ignore[arg-type]  # a list


async def test_an_embedder_that_raises_fails_its_callers_only(
    postgres_dsn: str, postgres_schema: str, index: Any
) -> None:
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()
        outcomes = await asyncio.gather(
            store.aput(A, "good", {"v": "1 0"}),
            store.aput(A, "bad", {"v": "bad"}),
            store.aput(A, "plain", {"v": "bad"}, index=False),
            store.asearch(A, query="bad"),
            store.aput(A, "long", {"v": "1 2 3"}),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [
            type(None),
            RuntimeError,
            type(None),
            RuntimeError,
            ValueError,
        ]
        assert sorted(item.key for item in await store.asearch(A)) == ["good", "plain"]


async def test_calls_keep_their_order_while_texts_are_embedded(
    postgres_dsn: str, postgres_schema: str, index: Any
) -> None:
    is_first, all_are_called = asyncio.Event(), asyncio.Event()

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        if not is_first.is_set():
            is_first.set()
            await all_are_called.wait()
        return [[1.0, 2.0] for _ in texts]

    index["embed"] = embed
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()

        async def call_all() -> None:
            await is_first.wait()
            for _ in range(50):  # turns of the loop
                await asyncio.sleep(0)
            all_are_called.set()

        _, item, _, other, _ = await asyncio.gather(
            store.aput(A, "k", {"v": "slow"}),
            store.aget(A, "k"),
            store.aput(A, "k", {"v": "fast"}),
            store.aget(("b",), "k"),
            call_all(),
        )
        assert item is not None
        assert item.value == {"v": "slow"}
        assert other is None
        last = await store.aget(A, "k")
        assert last is not None
        assert last.value == {"v": "fast"}


async def test_other_dimensions_are_refused(postgres_dsn: str, postgres_schema: str, index: Any) -> None:
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index) as store:
        await store.asetup()
        await store.aput(A, "k", {"v": "1 0"})
    other = index | {"dims": 3}
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=other) as store:
        for call in (store.asetup(), store.aget(A, "k")):
            with pytest.raises(ConfigError, match="dims"):
                await call


async def test_an_index_can_be_added_later(postgres_dsn: str, postgres_schema: str, index: Any) -> None:
    async with PostgresStore(postgres_dsn, schema=postgres_schema) as store:
        await store.asetup()
        await store.aput(A, "before", {"v": "1 0"})
    async with PostgresStore(postgres_dsn, schema=postgres_schema, index=index, text_index={"fields": ["v"]}) as store:
        with pytest.raises(ConfigError, match="setup"):
            await store.asearch(A, query="1 0")
        await store.asetup()
        await store.aput(A, "after", {"v": "1 0"})
        assert [item.key for item in await store.asearch(A, query="1 0")] == ["after", "before"]


@pytest.mark.parametrize("kind", ["hnsw", "ivfflat"])
async def test_no_page_ends_before_the_items_do(postgres_dsn: str, postgres_schema: str, index: Any, kind: str) -> None:
    """Past the 40 that HNSW looks at by itself, with a filter that few items fit."""
    forced = make_conninfo(postgres_dsn, options="-cenable_seqscan=off -cenable_sort=off -cenable_bitmapscan=off")
    index["ann_index_config"] = {"kind": kind}
    async with PostgresStore(forced, schema=postgres_schema, index=index) as store:
        await store.asetup()
        puts = [PutOp(A, f"{n:03}", {"v": f"1 {n / 100}", "rare": n % 50 == 0}) for n in range(600)]
        await store.abatch([*puts, PutOp(A, "none", {"rare": True})])
        _add_far_vectors(postgres_dsn, postgres_schema, 2_000)  # fewer are compared without the index
        rare = [f"{n:03}" for n in range(0, 600, 50)]
        found = await store.asearch(A, query="1 0", filter={"rare": True}, limit=20)
        assert [item.key for item in found] == [*rare, "none"]
        found = await store.asearch(A, query="1 0", limit=10, offset=100)
        if kind == "hnsw":
            assert [item.key for item in found] == [f"{n:03}" for n in range(100, 110)]
        assert len(found) == 10
        assert len(await store.asearch((), query="1 0", limit=1000)) == 601
    await eventually(lambda: _index_scans(postgres_dsn, postgres_schema))


def _add_far_vectors(dsn: str, schema: str, count: int) -> None:
    """All to one item, which has a near one: none is ever the best of its item."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            f"INSERT INTO {schema}.store_vectors (namespace, key, path, embedding) "
            f"SELECT 'a', '000', 'far' || n, ('[-1, ' || n / {count}.0 || ']')::vector "
            f"FROM generate_series(1, {count}) AS n".encode()
        )


def _index_scans(dsn: str, schema: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = %s AND indexrelname LIKE '%%distance'",
            [schema],
        ).fetchone()
    return int(row[0]) if row else 0


async def test_words(postgres_dsn: str, postgres_schema: str) -> None:
    async with PostgresStore(postgres_dsn, schema=postgres_schema, text_index={"fields": ["t"]}) as store:
        await store.asetup()
        texts = {"both": "red apple", "red": "a red car", "none": "blue", "hostile": "it's & | ! <-> (x) 'y'"}
        for key, text in texts.items():
            await store.aput(A, key, {"t": text})
        await store.aput(A, "untold", {"t": "red apple"}, index=False)
        found = keys_and_scores(await store.asearch(A, query="red apple"))
        assert [key for key, score in found if score is not None] == ["both", "red"]
        assert [key for key, score in found if score is None] == ["untold", "hostile", "none"]
        assert [item.key for item in await store.asearch(A, query="red apple", limit=2, offset=1)] == ["red", "untold"]
        for query in ("it's & | ! <-> (", "'", "\\", ":*", "a & 'b", "https://x.y/a?b=1&c=2"):
            await store.asearch(A, query=query)
        assert keys_and_scores(await store.asearch(A, query="it's"))[0][0] == "hostile"
        await store.aput(A, "both", {"t": "green"})
        assert [item.key for item in await store.asearch(A, query="apple") if item.score is not None] == []


async def test_a_language(postgres_dsn: str, postgres_schema: str) -> None:
    text_index: Any = {"language": "english"}
    async with PostgresStore(postgres_dsn, schema=postgres_schema, text_index=text_index) as store:
        await store.asetup()
        await store.aput(A, "k", {"t": "the running dogs"})
        [item] = await store.asearch(A, query="dog runs")
        assert item.score is not None
    wrong = PostgresStore(postgres_dsn, schema=postgres_schema, text_index={"language": "klingon"})
    with pytest.raises(ConfigError, match="klingon"):
        await wrong.asetup()
    await wrong.aclose()


async def test_vectors_and_words_are_fused(postgres_dsn: str, postgres_schema: str, index: Any) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [[float("apple" in text), float("red" in text) + 0.1] for text in texts]

    both: Any = {"index": index | {"embed": embed, "fields": ["t"]}, "text_index": {"fields": ["t"]}}
    async with PostgresStore(postgres_dsn, schema=postgres_schema, **both) as store:
        await store.asetup()
        for key, text in (("other", "blue"), ("fruit", "apple"), ("best", "red apple"), ("colour", "red")):
            await store.aput(A, key, {"t": text})
        await store.aput(A, "none", {"x": 1})
        found = keys_and_scores(await store.asearch(A, query="red apple"))
        assert found[0] == ("best", round(2 / 61, 6))
        assert found[-1] == ("none", None)
        pages = [await store.asearch(A, query="red apple", limit=2, offset=start) for start in (0, 2, 4)]
        assert [pair for page in pages for pair in keys_and_scores(page)] == found
