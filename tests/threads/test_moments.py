"""The very microsecond in which a thread expires, told by hand: until then it lives, from then on it is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from deerflow_replica._drivers.mongo_clock import ServerClock
from deerflow_replica._drivers.mongodb import Client
from deerflow_replica._drivers.redis import Script
from deerflow_replica.threads import InMemoryThreadMap, MongoThreadMap, RedisThreadMap, SqliteThreadMap, ThreadMap
from deerflow_replica.threads.redis import COUNT, ENDED, OWNERS
from deerflow_replica.threads.redis_rows import ThreadKeys

pytestmark = pytest.mark.anyio

_START = 1_700_000_000_000_000
_TTL_SECONDS = 5
_END = _START + _TTL_SECONDS * 1_000_000

_TOLD = """
local server = redis
local redis = setmetatable({call = function(name, ...)
  if name == 'TIME' then return {'%s', '%s'} end
  return server.call(name, ...)
end}, {__index = server})
"""


class Clock(ServerClock):
    """Of all that ask: the map in memory and SQLite's call it."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = _START

    def __call__(self) -> int:
        return self.moment

    async def now(self, client: Client) -> int:
        return self.moment


async def lives(threads: ThreadMap) -> bool:
    """As every reader says."""
    page = await threads.list("ann")
    answers = {
        await threads.owner_of("t") == "ann",
        await threads.owners_of(["t", "none"]) == {"t": "ann"},
        await threads.get("t", user_id="ann") is not None,
        await threads.count("ann") == 1,
        await threads.count("ann", metadata={"a": 1}) == 1,
        [record.thread_id for record in page.items] == ["t"],
        await threads.check_access("t", "ann"),
    }
    assert len(answers) == 1, answers
    return answers.pop()


async def check(threads: ThreadMap, clock: Clock) -> None:
    async with threads:
        await threads.claim("t", "ann", metadata={"a": 1}, ttl_seconds=_TTL_SECONDS)
        clock.moment = _END - 1
        assert await lives(threads)
        assert await threads.sweep() == 0
        clock.moment = _END
        assert not await lives(threads)
        assert await threads.sweep() == 1


async def test_in_memory() -> None:
    clock = Clock()
    await check(InMemoryThreadMap(_clock=clock), clock)


async def test_in_sqlite(tmp_path: Path) -> None:
    clock = Clock()
    await check(SqliteThreadMap(tmp_path / "threads.db", _clock=clock), clock)


async def test_in_mongodb(mongo_url: str, mongo_database: str) -> None:
    clock = Clock()
    await check(MongoThreadMap(mongo_url, database=mongo_database, _clock=clock), clock)


def at(moment: int, script: Script) -> str:
    """The script, told that it is `moment`."""
    return _TOLD % divmod(moment, 1_000_000) + script.source


async def test_in_redis(redis_url: str, key_prefix: str) -> None:
    """Its clock is the server's, so the scripts that read are told another time."""
    async with RedisThreadMap(redis_url, key_prefix=key_prefix) as threads:
        record = (await threads.claim("t", "ann", ttl_seconds=1000)).record
    assert record is not None
    assert record.expires_at is not None
    end = (record.expires_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    keys = ThreadKeys(key_prefix, "default")
    _, created, expiring_of_ann, expiring = keys.of_user("ann")
    with redis.Redis.from_url(redis_url, decode_responses=True) as server:

        def told(moment: int) -> list[Any]:
            return [
                server.eval(at(moment, COUNT), 2, created, expiring_of_ann),
                server.eval(at(moment, OWNERS), 1, keys.rows, "t"),
                [text[:1] for text in server.eval(at(moment, ENDED), 3, keys.rows, expiring, keys.buried, 0, 10)],
            ]

        assert told(end - 1) == [1, "ann", ["", ""]]
        assert told(end) == [0, "", ["t", ""]]
