"""What only MongoDB has: documents, indexes, a borrowed client, and a server that goes."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from deerflow_replica.errors import ConfigError, StoreUnavailableError
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.threads import ANY_USER, MongoThreadMap
from deerflow_replica.threads.values import SortBy, SortOrder
from mongo_server import CannotBuildError, FerretDB

pytestmark = pytest.mark.anyio


async def test_indexes_serve_both_orders_and_both_sweeps(mongo_url: str, mongo_database: str) -> None:
    async with MongoThreadMap(mongo_url, database=mongo_database, collection="owners") as threads:
        await threads.setup()
    with MongoClient[dict[str, Any]](mongo_url) as client:
        found = client[mongo_database]["owners"].index_information()
    keys = {name: [field for field, _ in index["key"]] for name, index in found.items()}
    assert keys == {
        "_id_": ["_id"],
        "by_updated": ["tenant", "user_id", "live", "updated_at", "thread_id"],
        "by_created": ["tenant", "user_id", "live", "created_at", "thread_id"],
        "by_expires": ["tenant", "live", "expires_at"],
        "by_deleted": ["tenant", "live", "deleted_at"],
    }


class Finds(CommandListener):
    """What is looked for."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find":
            self.sent.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


@pytest.mark.parametrize("sort_by", ["updated_at", "created_at"])
@pytest.mark.parametrize(("sort_order", "bound", "direction"), [("desc", "$lte", -1), ("asc", "$gte", 1)])
async def test_a_page_is_a_range_of_one_index(
    mongo_url: str, mongo_database: str, sort_by: SortBy, sort_order: SortOrder, bound: str, direction: int
) -> None:
    """No server here explains its plans: so the fields that are equal, then the order, are an index from its first to
    its last, all in one direction, and the page's place bounds it.
    """
    finds = Finds()
    async with (
        AsyncMongoClient[dict[str, Any]](mongo_url, event_listeners=[finds]) as client,
        MongoThreadMap(client=client, database=mongo_database) as threads,
    ):
        await threads.claim_many(["a", "b"], "ann")
        first = await threads.list("ann", limit=1, sort_by=sort_by, sort_order=sort_order)
        await threads.list("ann", cursor=first.next_cursor, sort_by=sort_by, sort_order=sort_order)
        indexes = await client[mongo_database]["user_thread_mappings"].index_information()
    [_, page] = [sent for sent in finds.sent if "sort" in sent]
    equal = {name: value for name, value in page["filter"].items() if not name.startswith("$")}
    assert equal == {"tenant": "default", "user_id": "ann", "live": True}
    assert indexes[f"by_{sort_by.removesuffix('_at')}"]["key"] == [(name, 1) for name in (*equal, *page["sort"])]
    assert dict(page["sort"]) == {sort_by: direction, "thread_id": direction}
    place, _ = page["filter"]["$and"]
    last = getattr(first.items[0], sort_by)
    assert place[sort_by] == {bound: (last - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)}


async def test_a_tombstone_keeps_id_and_owner_only(mongo_url: str, mongo_database: str) -> None:
    async with MongoThreadMap(mongo_url, database=mongo_database) as threads:
        await threads.claim("t", "ann", metadata={"secret": 1}, display_name="secret", assistant_id="secret")
        await threads.delete("t", user_id="ann")
    with MongoClient[dict[str, Any]](mongo_url) as client:
        (document,) = client[mongo_database]["user_thread_mappings"].find()
    assert "secret" not in str(document)
    assert (document["_id"], document["user_id"], document["live"]) == ("default:t", "ann", False)


async def test_a_borrowed_client_is_left_open(mongo_url: str, mongo_database: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongo_url, tz_aware=True) as client:
        async with MongoThreadMap(client=client, database=mongo_database) as threads:
            assert (await threads.claim("t", "ann")).created
            assert await asyncio.to_thread(threads.runner.call, threads.owner_of("t")) == "ann"
            with pytest.raises(RuntimeError, match="loop"):
                await asyncio.to_thread(lambda: asyncio.run(threads.owner_of("t")))
        assert (await client.admin.command("ping"))["ok"]


async def test_a_client_that_does_not_wait_for_answers(mongo_url: str, mongo_database: str) -> None:
    async with (
        AsyncMongoClient[dict[str, Any]](mongo_url, w=0) as client,
        MongoThreadMap(client=client, database=mongo_database) as threads,
    ):
        claims = await asyncio.gather(*(threads.claim("t", f"u{number}") for number in range(5)))
        assert sum(claim.created for claim in claims) == sum(claim.granted for claim in claims) == 1
        assert await threads.touch("t", user_id=ANY_USER)
        assert await threads.delete("t", user_id=ANY_USER)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "$a", "a/b", "x" * 64], ids=repr)
def test_bad_databases(name: Any) -> None:
    with pytest.raises(ValueError, match="database"):
        MongoThreadMap("mongodb://h", database=name)


@pytest.mark.parametrize("name", ["", "$a", "a$", ".a", "a..b", "a\x00", "x" * 121], ids=repr)
def test_bad_collections(name: Any) -> None:
    with pytest.raises(ValueError, match="collection"):
        MongoThreadMap("mongodb://h", collection=name)


async def test_a_bad_url() -> None:
    with pytest.raises(ConfigError) as refused:
        async with MongoThreadMap("mongodb://u:ge/heim@h"):
            raise AssertionError("it opened")
    assert "heim" not in str(refused.value)


async def test_what_the_server_refuses(mongo_url: str, mongo_database: str) -> None:
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client[mongo_database]["user_thread_mappings"].create_index("user_id", name="by_updated")
    with pytest.raises(StoreUnavailableError, match="refused") as refused:
        async with MongoThreadMap(mongo_url, database=mongo_database):
            raise AssertionError("it opened")
    assert type(refused.value.__cause__).__module__ == "pymongo.errors"


def test_neither_or_both() -> None:
    with pytest.raises(ValueError, match="either"):
        MongoThreadMap()


async def test_a_server_that_goes_and_comes_back() -> None:
    try:
        server = FerretDB()
    except CannotBuildError as error:
        pytest.skip(str(error))
    with server:

        async def is_told_in_time(seconds: float) -> bool:
            try:
                return await _goes_and_comes_back(server, seconds)
            except StoreUnavailableError:  # the machine stood still
                server.start()
                return False

        assert await for_one_of((2.0, 10.0), is_told_in_time)


async def _goes_and_comes_back(server: FerretDB, seconds: float) -> bool:
    async with MongoThreadMap(server.url, operation_timeout_seconds=seconds) as threads:
        await threads.claim("t", "ann")
        server.kill()
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="MongoDB"):
            await threads.owner_of("t")
        took = time.monotonic() - started
        server.start()
        assert await threads.owner_of("t") == "ann"
        assert not (await threads.claim("t", "bob")).granted
    return took < 2 * seconds
