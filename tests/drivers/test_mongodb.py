"""The shared client of MongoDB when something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure

from deerflow_replica._drivers.databases import Databases
from deerflow_replica._drivers.mongodb import MongoDatabase, collection_of
from deerflow_replica.errors import ConfigError, StoreUnavailableError
from deerflow_replica.testing._contract import for_one_of
from mongo_server import CannotBuildError, FerretDB
from proxy import cutting_proxy
from waiting import eventually

if TYPE_CHECKING:
    from deerflow_replica._drivers.mongodb import Client

from threads_left import NewThreads

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[FerretDB]:
    """One that may be killed."""
    try:
        private = FerretDB()
    except CannotBuildError as error:
        pytest.skip(str(error))
    with private:
        yield private


async def _ping(client: Client) -> Any:
    return (await client.admin.command("ping"))["ok"]


async def test_work_runs_from_any_loop_and_thread(new_threads: NewThreads, mongo_url: str) -> None:
    database = MongoDatabase(mongo_url)
    await database.open()
    assert await database.execute(_ping) == 1
    assert await asyncio.to_thread(lambda: asyncio.run(database.execute(_ping))) == 1
    assert database.execute_sync(_ping) == 1
    assert await asyncio.to_thread(database.execute_sync, _ping) == 1
    await database.close()
    assert not new_threads("deerflow-replica-mongodb")


async def test_a_restart_between_two_calls_is_not_seen(server: FerretDB) -> None:
    database = MongoDatabase(server.url)
    await database.open()
    await database.execute(_ping)
    server.kill()
    server.start()
    assert await database.execute(_ping) == 1
    await database.close()


async def test_a_server_that_is_away_is_an_error_in_time_and_found_again(server: FerretDB) -> None:
    database = MongoDatabase(server.url, timeout_seconds=3)
    await database.open()
    server.kill()
    with pytest.raises(
        StoreUnavailableError,
        match=r"MongoDB at mongodb://127.0.0.1:\d+/ is not available: .*Connect(ion| call) [^(]*(\([^(]*)?$",
    ):
        await database.execute(_ping)
    server.start()

    async def is_found() -> bool:
        with contextlib.suppress(StoreUnavailableError):  # the machine may be slow
            return bool(await database.execute(_ping) == 1)
        return False

    await eventually(is_found)
    await database.close()


async def test_a_server_that_is_not_there_is_an_error_at_the_opening(new_threads: NewThreads) -> None:
    database = MongoDatabase("mongodb://u:geheim@127.0.0.1:1/")
    with pytest.raises(StoreUnavailableError, match="Connect") as caught:
        await database.open()
    assert "geheim" not in str(caught.value)
    assert not new_threads("deerflow-replica-mongodb")


@pytest.mark.parametrize("url", ["mongodb://u:ge/heim@h/", "http://u:geheim@h", "mongodb://u:geheim@h:x/", ""])
async def test_what_is_no_url_says_so_without_the_password(url: str) -> None:
    database = MongoDatabase(url)
    with pytest.raises(ConfigError, match="is not a MongoDB URL") as caught:
        await database.open()
    assert "heim" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_work_that_lost_its_connection_runs_once_more_if_it_may(mongo_url: str) -> None:
    database = MongoDatabase(mongo_url)
    await database.open()
    runs = 0

    async def lose(client: Client) -> None:
        nonlocal runs
        runs += 1
        raise AutoReconnect("connection closed")

    with pytest.raises(StoreUnavailableError, match="connection closed"):
        await database.execute(lose, retry=False)
    assert runs == 1
    with pytest.raises(StoreUnavailableError, match="connection closed"):
        await database.execute(lose)
    assert runs == 3
    await database.close()


async def test_a_server_that_does_not_answer_is_an_error_in_time(mongo_url: str) -> None:
    async with cutting_proxy(mongo_url) as proxy:

        async def is_told_in_time(seconds: float) -> bool:
            database = MongoDatabase(_through(proxy.url), timeout_seconds=seconds)
            try:
                await database.open()
                proxy.flows.clear()
                with pytest.raises(StoreUnavailableError, match="no answer in time"):
                    await database.execute(_ping)
                proxy.flows.set()
                return bool(await database.execute(_ping) == 1)
            except StoreUnavailableError:  # the machine stood still, and not the proxy
                return False
            finally:
                await database.close()

        assert await for_one_of((0.5, 5.0, 20.0), is_told_in_time)


async def test_a_cancelled_call_harms_no_other(mongo_url: str) -> None:
    database = MongoDatabase(mongo_url, max_size=1)
    await database.open()
    for _ in range(20):
        call = asyncio.ensure_future(database.execute(_ping))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert await database.execute(_ping) == 1
    await database.close()


async def test_a_call_under_way_at_the_close_is_an_error(new_threads: NewThreads, mongo_url: str) -> None:
    async with cutting_proxy(mongo_url) as proxy:
        database = MongoDatabase(_through(proxy.url))
        await database.open()
        await database.execute(_ping)
        proxy.flows.clear()
        asked = asyncio.ensure_future(database.execute(_ping))
        await asyncio.sleep(0)
        await database.close()
        with pytest.raises(StoreUnavailableError):
            await asked
    assert not new_threads("deerflow-replica-mongodb")


async def test_a_borrowed_client_is_left_open(mongo_url: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        database = MongoDatabase(client=client)
        await database.open()
        assert await database.execute(_ping) == 1
        assert await asyncio.to_thread(database.execute_sync, _ping) == 1
        await database.close()
        assert await _ping(client) == 1
        lent = MongoDatabase(client=client)
        await client.close()
        with pytest.raises(StoreUnavailableError, match="its client is closed"):
            await lent.execute(_ping)


async def test_what_is_closed_says_so_without_a_thread(new_threads: NewThreads, mongo_url: str) -> None:
    database = MongoDatabase(mongo_url)
    await database.open()
    await database.close()
    with pytest.raises(StoreUnavailableError, match="not open"):
        await database.execute(_ping)
    with pytest.raises(StoreUnavailableError, match="not open"):
        database.execute_sync(_ping)
    assert not new_threads("deerflow-replica-mongodb")


async def test_a_mistake_of_the_caller_passes_as_it_is(mongo_url: str, mongo_database: str) -> None:
    database = MongoDatabase(mongo_url)
    await database.open()

    async def insert(client: Client) -> None:
        await client[mongo_database].things.insert_one({"_id": 1})

    async def ask_nonsense(client: Client) -> None:
        await client.admin.command("noSuchCommand")

    await database.execute(insert)
    with pytest.raises(DuplicateKeyError):
        await database.execute(insert)
    with pytest.raises(OperationFailure, match="no such command"):
        await database.execute(ask_nonsense)
    await database.close()


async def test_reads_go_to_the_primary_whatever_the_url_says(mongo_url: str) -> None:
    database = MongoDatabase(f"{mongo_url}?readPreference=secondary")
    await database.open()

    async def preference(client: Client) -> object:
        return collection_of(client, "d", "c").read_preference

    assert await database.execute(preference) == ReadPreference.PRIMARY
    await database.close()


async def test_parts_share_a_client_by_url(new_threads: NewThreads, mongo_url: str) -> None:
    databases = Databases()
    database = databases.mongo(mongo_url)
    assert databases.mongo(mongo_url) is database
    await database.open()
    await database.open()
    await database.close()
    assert await database.execute(_ping) == 1
    await database.close()
    assert not new_threads("deerflow-replica-mongodb")


def test_a_url_or_a_client_is_needed() -> None:
    with pytest.raises(ValueError, match="either url or client"):
        MongoDatabase()


def _through(url: str) -> str:
    return f"mongodb://{url.partition('@')[2] or url.partition('://')[2].rpartition('/')[0]}/".replace("/0/", "/")
