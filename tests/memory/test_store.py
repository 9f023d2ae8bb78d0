"""What only the storage in a store has: its layout, damaged items, versions, and servers that die."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import BaseStore, Op, PutOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.postgres import PostgresStore as LangGraphPostgresStore
from langgraph.store.sqlite.aio import AsyncSqliteStore as LangGraphSqliteStore

from deerflow_replica._drivers.embedded import EmbeddedPostgres
from deerflow_replica.errors import MemoryCorruptError, StoreUnavailableError
from deerflow_replica.memory import StoreMemoryStorage
from deerflow_replica.memory.items import items_of
from deerflow_replica.store import PostgresStore, SqliteStore
from waiting import eventually_sync


class CountingStore(SqliteStore):
    """Says how often it was asked for something."""

    asked = 0

    async def _submit(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        return await super()._submit(*args, **options)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[CountingStore]:
    with CountingStore(tmp_path / "store.db") as store:
        store.setup()
        yield store


@pytest.fixture
def storage(ours: CountingStore) -> StoreMemoryStorage:
    return StoreMemoryStorage(ours)


def facts(*ids: str) -> dict[str, Any]:
    return {"facts": [{"id": fact_id, "content": f"fact {fact_id}"} for fact_id in ids]}


def ids(document: dict[str, Any]) -> list[str]:
    return [fact["id"] for fact in document["facts"]]


@pytest.mark.parametrize(
    ("scope", "label", "key"),
    [
        ({}, "%none", "%none"),
        ({"agent_name": "None"}, "%none", "None"),
        ({"user_id": "global"}, "global", "%none"),
        ({"agent_name": "coder", "user_id": "ann"}, "ann", "coder"),
        ({"user_id": "history"}, "history", "%none"),
        ({"user_id": "ann.b@example.org"}, "ann%2Eb%40example%2Eorg", "%none"),
    ],
)
def test_where_documents_are(storage: StoreMemoryStorage, ours: SqliteStore, scope: Any, label: str, key: str) -> None:
    for number in range(3):
        assert storage.save(facts(str(number)), **scope)
    item = ours.get(("deerflow_memory", label), key)
    assert item is not None
    assert item.value["document"] == storage.load(**scope)
    earlier = ours.search(("deerflow_memory", "history", label))
    assert sorted((found.key, ids(found.value["document"])) for found in earlier) == [
        (f"{key}/1", ["0"]),
        (f"{key}/2", ["1"]),
    ]
    assert ours.count() == 3


def test_a_namespace_of_ones_own(ours: SqliteStore) -> None:
    storage = StoreMemoryStorage(ours, namespace=("team", "memory"))
    assert storage.save(facts("1"), user_id="ann")
    assert ours.get(("team", "memory", "ann"), "%none") is not None
    assert StoreMemoryStorage(ours).load(user_id="ann")["facts"] == []


@pytest.mark.parametrize("namespace", [(), "memory", ("",), ("a.b",), ("langgraph",), (1,)])
def test_a_namespace_that_cannot_be(namespace: Any) -> None:
    with pytest.raises(ValueError, match="namespace"):
        StoreMemoryStorage(InMemoryStore(), namespace=namespace)


@pytest.mark.parametrize("history", [0, 3])
def test_only_so_many_earlier_revisions_are_kept(ours: SqliteStore, history: int) -> None:
    storage, other = (StoreMemoryStorage(ours, history=history) for _ in range(2))
    assert storage.save(facts("x"))
    for number in range(6):
        assert other.save(facts(str(number)))
    assert storage.save(facts("y"))  # its last copy is of the first revision
    earlier = ours.search(("deerflow_memory", "history"))
    assert sorted(found.value["document"]["revision"] for found in earlier) == [5, 6, 7][: history or 0]


def test_round_trips(storage: StoreMemoryStorage, ours: CountingStore) -> None:
    def asked(work: Callable[[], object]) -> int:
        before = ours.asked
        work()
        return ours.asked - before

    assert asked(lambda: storage.save(facts("1"))) == 2
    assert asked(storage.load) == 1
    document = storage.load()
    assert asked(lambda: storage.save(document)) == 2
    assert asked(lambda: storage.save(facts("2"))) == 2
    assert asked(lambda: storage.apply_changes({"deletes": ["2"]})) == 2


def test_memory_does_not_expire_and_is_not_embedded(tmp_path: Path) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        pytest.fail(f"embedded {texts}")

    index: Any = {"dims": 2, "embed": embed}
    with SqliteStore(tmp_path / "store.db", ttl={"default_ttl": 0.00001, "omit_expired": True}, index=index) as store:
        store.setup()
        storage = StoreMemoryStorage(store)
        for number in range(3):
            assert storage.save(facts(str(number)))
        store.put(("other",), "key", {"will": "expire"}, index=False)
        while store.get(("other",), "key") is not None:
            pass
        assert ids(storage.load()) == ["2"]
        assert store.count(("deerflow_memory",)) == 3


@pytest.mark.parametrize(
    "value", [{}, {"document": []}, {"document": {"facts": {}}}, {"text": "{"}, {"text": 7}, {"text": "[" * 10_000}]
)
@pytest.mark.parametrize("make", [InMemoryStore, lambda: None])
def test_a_corrupt_item_is_left_as_it_is(ours: SqliteStore, make: Callable[[], BaseStore | None], value: Any) -> None:
    store = make() or ours
    storage = StoreMemoryStorage(store)
    assert storage.save(facts("1"))
    store.put(("deerflow_memory", "%none"), "%none", value)
    for read in (storage.load, storage.reload, StoreMemoryStorage(store).load):
        with pytest.raises(MemoryCorruptError, match="memory of everyone"):
            read()
    assert storage.save({"facts": []}) is False
    item = store.get(("deerflow_memory", "%none"), "%none")
    assert item is not None
    assert item.value == value


def test_a_corrupt_earlier_revision_only_costs_its_deletions(storage: StoreMemoryStorage, ours: SqliteStore) -> None:
    assert storage.save(facts("1"))
    mine = storage.load()
    assert storage.save({**mine, **facts("1", "2")})
    ours.put(("deerflow_memory", "history", "%none"), "%none/1", {"text": "{"})
    assert storage.save({**mine, "facts": []})
    assert ids(storage.load()) == ["1", "2"]


def test_a_store_without_versions_is_warned_of_once(ours: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    StoreMemoryStorage(ours)
    StoreMemoryStorage(ours.scoped("team"))
    assert caplog.records == []
    storage = StoreMemoryStorage(InMemoryStore())
    assert storage.save(facts("1"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "saves of other replicas" in caplog.text


def test_a_view_of_a_store_keeps_memory_inside(ours: SqliteStore) -> None:
    team = StoreMemoryStorage(ours.scoped("team"))
    assert team.save(facts("1"), "coder", user_id="ann")
    assert ours.get(("team", "deerflow_memory", "ann"), "coder") is not None
    assert team.clear_all(user_id="ann")["facts"] == []
    assert ids(team.load("coder", user_id="ann")) == []
    assert StoreMemoryStorage(ours).load("coder", user_id="ann")["revision"] == 0


def test_all_keys_are_found_and_no_others(ours: SqliteStore) -> None:
    """However many pages they are."""
    keys = [f"{number:04}" for number in range(1_200)]
    stores: tuple[BaseStore, ...] = (ours, InMemoryStore())
    for store in stores:
        store.batch([PutOp(("a", "b"), key, {}) for key in keys])
        store.batch(
            [PutOp(namespace, f"not {key}", {}) for key in keys for namespace in (("a", "b", "c"), ("a", "bc"))]
        )
        assert sorted(items_of(store).keys(("a", "b"))) == keys


def test_all_agents_are_cleared(storage: StoreMemoryStorage, ours: SqliteStore) -> None:
    agents = [f"agent-{number}" for number in range(5)]
    for agent in agents:
        assert storage.save(facts(agent), agent, user_id="history")
    for _ in range(2):  # the earlier revision is below the user's label
        assert storage.save(facts("1"), "other", user_id="ann")
    before = ours.count()
    storage.clear_all(user_id="history")
    assert ours.count() == before + len(agents) + 1
    assert [ids(storage.load(agent, user_id="history")) for agent in agents] == [[]] * 5
    assert ids(storage.load("other", user_id="ann")) == ["1"]


def test_a_store_that_was_closed_is_away(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    store.setup()
    storage = StoreMemoryStorage(store)
    assert storage.save(facts("1"))
    store.close()
    assert ids(storage.load()) == ["1"]
    assert storage.save(facts("2")) is False
    with pytest.raises(StoreUnavailableError):
        storage.load(user_id="ann")


def test_while_away_an_agents_facts_are_the_last_ones_seen(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    store.setup()
    storage = StoreMemoryStorage(store, summaries="user")
    assert storage.save(facts("own"), user_id="ann")
    assert storage.save(facts("1"), "coder", user_id="ann")
    store.close()
    assert ids(storage.load("coder", user_id="ann")) == ["1"]
    assert ids(storage.load(user_id="ann")) == ["own"]
    with pytest.raises(StoreUnavailableError):  # its facts from before may be elsewhere
        storage.load("planner", user_id="ann")


def test_without_versions_saves_wait_for_each_other() -> None:
    held, told = threading.Event(), threading.Event()

    class Slow(InMemoryStore):
        def batch(self, ops: Iterable[Op]) -> list[Any]:
            listed = list(ops)
            if any(isinstance(op, PutOp) for op in listed):
                told.set()
                assert held.wait(60)
            return super().batch(listed)

    store = Slow()
    one, two = StoreMemoryStorage(store), StoreMemoryStorage(store)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.apply_changes, {"upserts": [{"id": "1", "content": "a"}]})
        assert told.wait(60)
        second = pool.submit(two.apply_changes, {"upserts": [{"id": "2", "content": "b"}]})
        with pytest.raises(TimeoutError):
            second.result(0.05)
        held.set()
        assert (first.result(10)["revision"], second.result(10)["revision"]) == (1, 2)
    assert ids(one.load()) == ["1", "2"]


@pytest.mark.anyio
async def test_a_store_that_refuses_its_own_loop_is_used_from_beside_it(tmp_path: Path) -> None:
    async with LangGraphSqliteStore.from_conn_string(str(tmp_path / "store.db")) as store:
        await store.setup()
        storage = StoreMemoryStorage(store)
        with pytest.raises(StoreUnavailableError):
            storage.load()
        assert storage.save(facts("1")) is False
        assert await asyncio.to_thread(storage.save, facts("1"))
        assert ids(await asyncio.to_thread(storage.load)) == ["1"]


@pytest.fixture(scope="module")
def mortal() -> Iterator[EmbeddedPostgres]:
    """A server of our own, to be killed."""
    with EmbeddedPostgres() as server:
        yield server


def test_a_server_that_dies_is_never_an_empty_memory(
    mortal: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    with LangGraphPostgresStore.from_conn_string(mortal.dsn) as store:
        store.setup()
        storage = StoreMemoryStorage(store)
        assert storage.save(facts("1"), user_id="ann")
        mine = storage.load(user_id="ann")
        caplog.clear()
        mortal.kill()
        for _ in range(2):
            assert ids(storage.load(user_id="ann")) == ["1"]
        warned = [record for record in caplog.records if record.name == "deerflow_replica.memory.documents"]
        assert [record.levelno for record in warned] == [logging.WARNING]
        for read in (storage.reload, StoreMemoryStorage(store).load):
            with pytest.raises(StoreUnavailableError):
                read(user_id="ann")
        with pytest.raises(StoreUnavailableError):
            storage.load(user_id="bob")
        assert storage.save({**mine, **facts("1", "2")}, user_id="ann") is False
        assert ids(storage.load(user_id="ann")) == ["1"]
        with pytest.raises(StoreUnavailableError):
            storage.apply_changes({"deletes": ["1"]}, user_id="ann")
        with pytest.raises(StoreUnavailableError):
            storage.clear_all(user_id="ann")
    mortal.start()
    with LangGraphPostgresStore.from_conn_string(mortal.dsn) as store:
        assert ids(StoreMemoryStorage(store).load(user_id="ann")) == ["1"]


def test_our_own_store_comes_back_with_its_server(mortal: EmbeddedPostgres) -> None:
    with PostgresStore(mortal.dsn, timeout_seconds=2) as store:
        store.setup()
        storage = StoreMemoryStorage(store)
        assert storage.save(facts("1"), user_id="ann")
        mine = storage.load(user_id="ann")
        mortal.kill()
        assert storage.save({**mine, **facts("1", "2")}, user_id="ann") is False
        assert ids(storage.load(user_id="ann")) == ["1"]
        with pytest.raises(StoreUnavailableError):
            storage.load(user_id="bob")
        mortal.start()
        eventually_sync(lambda: storage.save({**mine, **facts("1", "2")}, user_id="ann"))
        assert ids(storage.reload(user_id="ann")) == ["1", "2"]


def test_what_a_database_would_change_is_kept_as_text(storage: StoreMemoryStorage, ours: SqliteStore) -> None:
    assert storage.save({"facts": [], "x": "a\0b"})
    item = ours.get(("deerflow_memory", "%none"), "%none")
    assert item is not None
    assert json.loads(item.value["text"])["x"] == "a\0b"
