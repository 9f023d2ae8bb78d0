"""What only Redis has: keys, slots, scripts, and a server that goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.crc import key_slot

from deerflow_replica._drivers.embedded import EmbeddedValkey
from deerflow_replica.errors import ConfigError, StoreUnavailableError
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.threads import Claim, RedisThreadMap
from proxy import CuttingProxy

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as server:
        yield server


async def used(threads: RedisThreadMap) -> None:
    """Every kind of key."""
    await threads.claim_many(["a", "b", "c"], "ann", ttl_seconds=1000)
    await threads.claim("d", "{bob}", ttl_seconds=1000, status="busy")
    await threads.update("d", user_id="{bob}", status="idle")
    await threads.transfer("a", "ann", "}{")
    await threads.delete("b", user_id="ann")


async def test_all_keys_of_a_tenant_share_a_slot_and_stay(server: redis.Redis, redis_url: str, key_prefix: str) -> None:
    async with RedisThreadMap(redis_url, key_prefix=key_prefix) as threads:
        await used(threads)
        found: Any = server.keys(f"*{key_prefix}*")
    assert len(found) == 12
    assert len({key_slot(key) for key in found}) == 1
    assert {key for key in found if not key.startswith(f"{{{key_prefix}:default}}:".encode())} == set()
    assert {server.ttl(key) for key in found} == {-1}


async def test_nothing_is_left_when_all_is_gone(server: redis.Redis, redis_url: str, key_prefix: str) -> None:
    async with RedisThreadMap(redis_url, key_prefix=key_prefix, tombstone_seconds=0) as threads:
        await used(threads)
        for thread_id, user in (("a", "}{"), ("c", "ann"), ("d", "{bob}")):
            assert await threads.delete(thread_id, user_id=user)
    async with RedisThreadMap(redis_url, key_prefix=key_prefix, tombstone_seconds=1e-6) as threads:
        await threads.claim_many(["e", "f"], "ann", ttl_seconds=1e-6)
        await threads.claim("g", "ann")
        await threads.delete("g", user_id="ann")
        assert await threads.sweep() == 2
        await threads.sweep()
    assert server.keys(f"*{key_prefix}*") == []


async def test_one_round_trip_each(redis_url: str, key_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RedisThreadMap(redis_url, key_prefix=key_prefix) as threads:
        batches = threads._database._opened()
        sent = list[int]()
        call = batches.lane.call

        async def counted(*commands: Any) -> list[Any]:
            sent.append(len(commands))
            return await call(*commands)

        monkeypatch.setattr(batches.lane, "call", counted)
        ids = [f"t{number}" for number in range(1000)]
        for work in (
            threads.claim("t", "ann"),
            threads.claim("t", "ann"),
            threads.claim("t", "bob"),
            threads.claim_many(ids, "ann", ttl_seconds=1000),
            threads.claim_many(ids, "ann"),
            threads.owner_of("t"),
            threads.owners_of(ids),
            threads.get("t", user_id="ann"),
            threads.hold("t", "ann"),
            threads.check_access("t", "ann"),
            threads.list("ann", limit=1000),
            threads.list("ann", limit=10, offset=500),
            threads.count("ann"),
        ):
            sent.clear()
            await work
            assert len(sent) == 1


async def test_callers_at_once_share_round_trips(redis_url: str, key_prefix: str) -> None:
    async with RedisThreadMap(redis_url, key_prefix=key_prefix) as threads:
        claims = await asyncio.gather(*(threads.claim(f"t{number}", "ann") for number in range(300)))
        assert all(claim.created for claim in claims)
        assert threads._database._opened().lane.connections_made == 1


async def test_many_callers_lose_one_connection(redis_url: str, key_prefix: str) -> None:
    proxy = CuttingProxy(redis_url)
    await proxy.start()
    try:
        async with RedisThreadMap(proxy.url, key_prefix=key_prefix) as threads:
            claims = [asyncio.ensure_future(threads.claim(f"t{number}", "ann")) for number in range(300)]
            await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
            proxy.cut()
            assert all(claim.created for claim in await asyncio.gather(*claims))
            assert await threads.count("ann") == 300
    finally:
        await proxy.stop()


async def test_a_call_under_way_when_the_map_closes(redis_url: str, key_prefix: str) -> None:
    threads = RedisThreadMap(redis_url, key_prefix=key_prefix)
    await threads.setup()
    claims = [asyncio.ensure_future(threads.claim(f"t{number}", "ann")) for number in range(50)]
    await asyncio.sleep(0)
    await threads.close()
    for answer in await asyncio.gather(*claims, return_exceptions=True):
        assert isinstance(answer, (Claim, StoreUnavailableError))


async def test_scripts_are_sent_again_to_a_server_that_forgot_them(
    server: redis.Redis, redis_url: str, key_prefix: str
) -> None:
    async with RedisThreadMap(redis_url, key_prefix=key_prefix) as threads:
        await threads.claim("t", "ann")
        server.script_flush()
        assert not (await threads.claim("t", "bob")).granted
        assert await threads.touch("t", user_id="ann")


async def test_the_last_moment_of_the_calendar(redis_url: str, key_prefix: str) -> None:
    """Times past the integers that a double holds."""
    async with RedisThreadMap(redis_url, key_prefix=key_prefix) as threads:
        for number, ttl_seconds in enumerate((9e9, 9e9 + 1e-6, 123_456_789_012.345678, 2e11, 1e300)):
            claim = await threads.claim(f"t{number}", "ann", ttl_seconds=ttl_seconds)
            assert claim.record == await threads.get(f"t{number}", user_id="ann")
            assert await threads.count("ann") == number + 1
        assert await threads.sweep() == 0


async def test_what_the_server_refuses(server: redis.Redis, redis_url: str, key_prefix: str) -> None:
    server.set(f"{{{key_prefix}:default}}:rows", "something else")
    async with RedisThreadMap(redis_url, key_prefix=key_prefix) as threads:
        for work in (threads.claim("t", "ann"), threads.owner_of("t"), threads.touch("t", user_id="ann")):
            with pytest.raises(StoreUnavailableError, match="refused") as refused:
                await work
            assert type(refused.value.__cause__).__module__ == "redis.exceptions"
    server.delete(f"{{{key_prefix}:default}}:rows")


async def test_a_borrowed_client_is_left_open(redis_url: str, key_prefix: str) -> None:
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        async with RedisThreadMap(client=client, key_prefix=key_prefix) as threads:
            assert (await threads.claim("t", "änn")).created
            assert await threads.owner_of("t") == "änn"
        assert await client.ping()
        async with RedisThreadMap(client=client, key_prefix=key_prefix) as threads:
            assert await threads.owner_of("t") == "änn"


@pytest.mark.parametrize("prefix", ["", "}x"])
def test_bad_prefixes(prefix: str) -> None:
    with pytest.raises(ValueError, match="key_prefix"):
        RedisThreadMap(key_prefix=prefix)


def test_a_bad_url() -> None:
    with pytest.raises(ConfigError) as refused:
        RedisThreadMap("redis://:geheim@h:x")
    assert "geheim" not in str(refused.value)


async def test_a_server_that_says_nothing(redis_url: str, key_prefix: str) -> None:
    async def is_told_in_time(seconds: float) -> bool:
        proxy.swallows_replies = False
        try:
            return await _says_nothing_for_a_while(proxy, key_prefix, seconds)
        except StoreUnavailableError:  # the machine stood still, and not the proxy
            return False

    proxy = CuttingProxy(redis_url)
    await proxy.start()
    try:
        assert await for_one_of((0.3, 3.0, 15.0), is_told_in_time)
    finally:
        await proxy.stop()


async def _says_nothing_for_a_while(proxy: CuttingProxy, key_prefix: str, seconds: float) -> bool:
    async with RedisThreadMap(proxy.url, key_prefix=key_prefix, operation_timeout_seconds=seconds) as threads:
        await threads.claim("t", "ann")
        proxy.swallows_replies = True
        started = time.monotonic()
        for work in (threads.claim("n", "ann"), threads.owner_of("t"), threads.list("ann")):
            with pytest.raises(StoreUnavailableError):
                await work
        took = time.monotonic() - started
        proxy.swallows_replies = False
        assert await threads.owner_of("t") == "ann"
    return took < 8 * seconds


async def test_a_server_that_goes_and_comes_back() -> None:
    with EmbeddedValkey() as valkey:
        url = valkey.url
        async with RedisThreadMap(url, operation_timeout_seconds=5) as threads:
            await threads.claim("t", "ann")
            valkey.kill()
            with pytest.raises(StoreUnavailableError, match="cannot reach"):
                await threads.owner_of("t")
            valkey.start()
            assert await threads.owner_of("t") in ("ann", None)
            assert (await threads.claim("after", "ann")).created
    with pytest.raises(StoreUnavailableError, match="cannot reach"):
        async with RedisThreadMap(url):
            raise AssertionError("it opened")
