"""What only the store in MongoDB has to get right."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from deerflow_replica._drivers.mongo_clock import ServerClock
from deerflow_replica.config import AppConfig
from deerflow_replica.errors import ConfigError, StoreUnavailableError, VersionConflictError
from deerflow_replica.store import MongoStore, SharedStore, VersionedItem, open_store
from deerflow_replica.store.times import to_micros
from mongo_server import CannotBuildError, FerretDB
from proxy import cutting_proxy
from store.replicas import check_nothing_is_lost, write_together
from threads_left import NewThreads
from waiting import eventually

pytestmark = pytest.mark.anyio

FORK = multiprocessing.get_context("fork")


@pytest.fixture
async def store(mongo_url: str, mongo_database: str) -> AsyncIterator[MongoStore]:
    async with MongoStore(mongo_url, database=mongo_database) as store:
        await store.asetup()
        yield store


@pytest.fixture
async def client(mongo_url: str) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        yield client


@pytest.fixture
def server() -> Iterator[FerretDB]:
    """One that may be killed."""
    try:
        private = FerretDB()
    except CannotBuildError as error:
        pytest.skip(str(error))
    with private:
        yield private


async def versioned(store: SharedStore, key: str = "k") -> VersionedItem:
    item = await store.aget_versioned(("a",), key)
    assert item is not None
    return item


async def test_items_outlive_the_store(store: MongoStore, mongo_url: str, mongo_database: str) -> None:
    await store.aput(("a",), "k", {"x": 1})
    async with MongoStore.from_conn_string(mongo_url, database=mongo_database) as other:
        assert (await versioned(other)).value == {"x": 1}


async def test_collections_are_apart(store: MongoStore, mongo_url: str, mongo_database: str) -> None:
    await store.aput(("a",), "k", {})
    async with MongoStore(mongo_url, database=mongo_database, collection="other") as other:
        with pytest.raises(ConfigError, match=r"no store 'other': call setup\(\)"):
            await other.acount()
        await other.asetup()
        assert await other.acount() == 0


@pytest.mark.parametrize("database", ["", "a.b", "a b", "a/b", "x" * 64, "a$", "\0"])
def test_a_database_has_a_name(database: str) -> None:
    with pytest.raises(ConfigError, match=r"database: .* is no name"):
        MongoStore("mongodb://h", database=database)


@pytest.mark.parametrize("collection", ["", "a$", "system.x", ".a", "a.", "a..b", "x" * 121])
def test_a_collection_has_a_name(collection: str) -> None:
    with pytest.raises(ConfigError, match=r"collection: .* is no name"):
        MongoStore("mongodb://h", collection=collection)


def test_there_is_no_vector_search(mongo_url: str) -> None:
    options: dict[str, Any] = {"index": {"dims": 2, "embed": lambda texts: [[1.0, 0.0] for _ in texts]}}
    with pytest.raises(TypeError, match="index"):
        MongoStore(mongo_url, **options)


async def test_what_a_newer_version_wrote_is_left_alone(
    store: MongoStore, mongo_database: str, client: AsyncMongoClient[dict[str, Any]]
) -> None:
    await client[mongo_database]["store.about"].update_one({"_id": "schema"}, {"$set": {"number": 99}})
    with pytest.raises(ConfigError, match="newer version"):
        await store.asetup()
    with pytest.raises(ConfigError, match="newer version"):
        await store.aget(("a",), "k")


async def test_a_value_can_be_read_in_the_collection(
    store: MongoStore, mongo_database: str, client: AsyncMongoClient[dict[str, Any]]
) -> None:
    await store.aput(("a", "b"), "k", {"name": "x", "in": {"n": [1, 2.5]}}, ttl=1)
    found = await client[mongo_database].store.find_one({"namespace": "a.b", "value.name": "x"})
    assert found is not None
    assert found["value"] == {"name": "x", "in": {"n": [1, 2.5]}, "%put": found["value"]["%put"]}
    assert found["key"] == "k"
    assert found["expires_at"] - found["updated_at"] == found["ttl"] == 60_000_000


async def test_what_is_large_or_deep_is_found_by_its_filter(store: MongoStore) -> None:
    deep: dict[str, Any] = {"color": "red"}
    for _ in range(150):
        deep = {"in": deep}
    await store.aput(("a",), "long", {"color": "red", "text": "x" * (3 * 2**20)})
    await store.aput(("a",), "many", {"color": "red", "list": [0] * 2**20})
    await store.aput(("a",), "deep", {"color": "red", "deep": deep})
    await store.aput(("a",), "blue", {"color": "blue", "big": 2**64 - 1})
    assert {item.key for item in await store.asearch(("a",), filter={"color": "red"})} == {"long", "many", "deep"}
    assert await store.acount(("a",), filter={"big": {"$gt": 2**63}}) == 1
    assert await store.acount(("a",), filter={"big": {"$gt": 0}}) == 1


async def test_a_borrowed_client_serves_its_loop_and_stays_open(
    mongo_database: str, client: AsyncMongoClient[dict[str, Any]]
) -> None:
    async with MongoStore(client, database=mongo_database) as store:
        await store.asetup()
        await store.aput(("a",), "k", {"x": 1})
        assert await asyncio.to_thread(store.count) == 1
    assert (await client.admin.command("ping"))["ok"] == 1
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.aget(("a",), "k")


async def test_sync_calls_and_other_loops(store: MongoStore) -> None:
    await asyncio.to_thread(store.put, ("a",), "k", {"x": 1})
    assert (await asyncio.to_thread(lambda: asyncio.run(versioned(store)))).value == {"x": 1}
    assert (await versioned(store)).value == {"x": 1}


async def test_processes_set_up_together_and_lose_nothing(mongo_url: str, mongo_database: str) -> None:
    await write_together("MongoStore", conn=mongo_url, database=mongo_database)
    async with MongoStore(mongo_url, database=mongo_database) as store:
        await check_nothing_is_lost(store)


def _use_after_fork(store: MongoStore, results: Any) -> None:
    store.put(("a",), "child", {})
    results.put(store.count())
    store.close()


@pytest.mark.filterwarnings("ignore:AsyncMongoClient opened before fork")  # the child opens its own, and says so
def test_a_forked_child_connects_anew(mongo_url: str, mongo_database: str) -> None:
    with MongoStore(mongo_url, database=mongo_database) as store:
        store.setup()
        store.put(("a",), "parent", {})
        results = FORK.SimpleQueue()
        child = FORK.Process(target=_use_after_fork, args=(store, results))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert results.get() == 2
        assert store.count() == 2


async def test_a_restart_between_two_calls_is_not_seen(server: FerretDB) -> None:
    async with MongoStore(server.url) as store:
        await store.asetup()
        await store.aput(("a",), "k", {"x": 1})
        for call in (versioned(store), store.aput(("a",), "k", {"x": 1}), store.acount()):
            server.kill()
            server.start()
            await call


async def test_a_server_that_is_away_is_an_error_and_never_nothing(server: FerretDB) -> None:
    async with MongoStore(server.url, timeout_seconds=3) as store:
        await store.asetup()
        await store.aput(("a",), "k", {"x": 1})
        server.kill()
        with pytest.raises(StoreUnavailableError, match="Connect"):
            await store.aget(("a",), "k")
        with pytest.raises(StoreUnavailableError, match="Connect"):
            await store.aput(("a",), "k", {}, if_version=1)
        server.start()

        async def is_back() -> bool:
            with contextlib.suppress(StoreUnavailableError):  # the machine may be slow
                return (await versioned(store)).value == {"x": 1}
            return False

        await eventually(is_back)


async def test_a_conditional_write_whose_answer_is_lost_is_not_repeated(mongo_url: str, mongo_database: str) -> None:
    async with cutting_proxy(mongo_url) as proxy:
        address = proxy.url.removeprefix("redis://").partition("/")[0]
        async with MongoStore(f"mongodb://{address}/", database=mongo_database) as store:
            await store.asetup()
            await store.aput(("a",), "k", {"n": 0})
            before = await versioned(store)
            proxy.swallows_replies = True
            writing = asyncio.ensure_future(store.aput(("a",), "k", {"n": 1}, if_version=before.version))
            while not proxy.swallowed:  # noqa: ASYNC110  # only one: what is repeated would get its answer
                await asyncio.sleep(0)
            proxy.swallows_replies = False
            with pytest.raises(StoreUnavailableError):
                await writing
            after = await versioned(store)
            assert after.value == {"n": 1}
            with pytest.raises(VersionConflictError) as caught:
                await store.aput(("a",), "k", {"n": 2}, if_version=before.version)
            assert caught.value.current == after.version


async def test_what_the_server_refuses_is_told_as_ours(
    store: MongoStore, mongo_database: str, client: AsyncMongoClient[dict[str, Any]]
) -> None:
    await client[mongo_database].store.create_index([("value.x", 1)], unique=True)
    await store.aput(("a",), "k", {"x": 1})
    await store.aput(("a",), "l", {"x": 2})
    item = await versioned(store, "l")
    with pytest.raises(StoreUnavailableError, match="refused") as caught:
        await store.aput(("a",), "l", {"x": 1}, if_version=item.version)
    assert isinstance(caught.value.__cause__, OperationFailure)
    await store.aput(("a",), "l", {"x": 3}, if_version=item.version)


async def test_versions_grow_over_deletes_of_other_replicas(
    store: MongoStore, mongo_url: str, mongo_database: str
) -> None:
    async with MongoStore(mongo_url, database=mongo_database) as other:
        last = 0
        for number in range(10):
            replica = other if number % 2 else store
            version = await replica.aput(("a",), "k", {}, if_version=0)
            assert version is not None
            assert version > last
            last = version
            await replica.adelete(("a",), "k")


async def test_stamps_are_the_servers(store: MongoStore, client: AsyncMongoClient[dict[str, Any]]) -> None:
    before = (await client.admin.command("hello"))["localTime"].replace(tzinfo=UTC)
    await store.aput(("a",), "k", {})
    item = await versioned(store)
    after = (await client.admin.command("hello"))["localTime"].replace(tzinfo=UTC)
    slack = timedelta(seconds=1)
    assert before - slack <= item.created_at == item.updated_at <= after + timedelta(milliseconds=1)


async def test_the_clock_is_never_ahead_of_the_servers(client: AsyncMongoClient[dict[str, Any]]) -> None:
    clock = ServerClock()
    for _ in range(20):
        told = await clock.now(client)
        later = (await client.admin.command("hello"))["localTime"].replace(tzinfo=UTC)
        assert told <= to_micros(later) + 1000


async def test_one_replica_sweeps_at_a_time(
    store: MongoStore, mongo_database: str, client: AsyncMongoClient[dict[str, Any]]
) -> None:
    await store.aput(("a",), "k", {}, ttl=1)
    await client[mongo_database].store.update_many({}, {"$set": {"expires_at": 1}})
    about = client[mongo_database]["store.about"]
    in_a_minute = to_micros(datetime.now(UTC) + timedelta(minutes=1))
    await about.insert_one({"_id": "sweep", "by": "another", "until": in_a_minute})
    assert await store.asweep_ttl() == 0
    await about.update_one({"_id": "sweep"}, {"$set": {"until": 1}})
    assert await store.asweep_ttl() == 1
    assert await store.asweep_ttl() == 0


async def test_a_configured_store(mongo_url: str, mongo_database: str) -> None:
    section = {"type": "mongo", "connection_string": mongo_url, "mongo_database": mongo_database}
    async with open_store(AppConfig.from_mapping({"store": section})) as store:
        await store.aput(("a",), "k", {"x": 1}, ttl=0.001)
        assert await store.aget(("b",), "k") is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"index": {"dims": 2}}, r"store\.index: a store of type mongo has none"),
        ({"mongo_database": "a.b"}, r"store\.mongo_database: 'a\.b' is no name"),
        ({"connection_string": "mongodb://u:ge/heim@h"}, r"store\.connection_string: 'mongodb://u:\*\*\*@h' is not a"),
    ],
)
async def test_a_mistake_in_the_configuration_has_its_key(changed: dict[str, Any], told: str) -> None:
    section = {"type": "mongo", "connection_string": "mongodb://h"} | changed
    with pytest.raises(ConfigError, match=told):
        async with open_store(AppConfig.from_mapping({"store": section})):
            pass


async def test_nothing_runs_after_the_end(new_threads: NewThreads, store: MongoStore) -> None:
    await asyncio.to_thread(store.count)
    await store.aclose()
    assert not new_threads("deerflow-replica")
