"""How many round trips a call takes: one, for one thread as for a thousand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from deerflow_replica.threads import MongoThreadMap, PostgresThreadMap, ThreadMap

pytestmark = pytest.mark.anyio

_IDS = [f"t{number}" for number in range(1000)]


async def sent_by(sent: list[str], call: Awaitable[object]) -> int:
    sent.clear()
    await call
    return len(sent)


def reads(threads: ThreadMap) -> tuple[Callable[[], Awaitable[object]], ...]:
    return (
        lambda: threads.claim("t1", "ann"),
        lambda: threads.claim("t1", "bob"),
        lambda: threads.hold("t1", "ann"),
        lambda: threads.get("t1", user_id="ann"),
        lambda: threads.check_access("t1", "ann"),
        lambda: threads.owner_of("t1"),
        lambda: threads.owners_of(_IDS),
        lambda: threads.list("ann", limit=1000),
        lambda: threads.list("ann", limit=500, offset=400),
        lambda: threads.list("ann", limit=1000, ids=_IDS),
        lambda: threads.count("ann"),
    )


@pytest.fixture
def sent() -> list[str]:
    return []


@pytest.fixture
async def on_postgres(sent: list[str], postgres_dsn: str, postgres_schema: str) -> AsyncIterator[ThreadMap]:
    class Counting(AsyncConnection[Any]):
        async def execute(self, query: Any, *args: Any, **keywords: Any) -> Any:
            sent.append(str(query))
            return await super().execute(query, *args, **keywords)

    pool: Any = AsyncConnectionPool(
        postgres_dsn, connection_class=Counting, kwargs={"autocommit": True}, min_size=1, open=False
    )
    async with pool, PostgresThreadMap(pool=pool, schema=postgres_schema) as threads:
        yield threads


async def test_postgres(on_postgres: ThreadMap, sent: list[str]) -> None:
    for _ in ("new ones", "own ones"):
        assert await sent_by(sent, on_postgres.claim_many(_IDS, "ann", metadata={"k": 1})) == 1
    for number, call in enumerate(reads(on_postgres)):
        assert await sent_by(sent, call()) == 1, number
    assert await sent_by(sent, on_postgres.count("ann", metadata={"k": 1})) == 1


class Commands(CommandListener):
    def __init__(self, sent: list[str]) -> None:
        self._sent = sent

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name != "hello":  # of the clock
            self._sent.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """It was counted."""

    def failed(self, event: CommandFailedEvent) -> None:
        """It was counted."""


async def test_mongodb(mongo_url: str, mongo_database: str, sent: list[str]) -> None:
    async with (
        AsyncMongoClient[dict[str, Any]](mongo_url, event_listeners=[Commands(sent)]) as client,
        MongoThreadMap(client=client, database=mongo_database) as threads,
    ):
        assert await sent_by(sent, threads.claim_many(_IDS, "ann", metadata={"k": 1})) == 2
        assert await sent_by(sent, threads.claim_many(_IDS, "ann")) == 1
        for number, call in enumerate(reads(threads)):
            assert await sent_by(sent, call()) == 1, (number, sent)
