"""What only Redis has: keys with and without an end, one slot, replies that get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot

from deerflow_replica._drivers.redis import Command
from deerflow_replica._drivers.redis_database import RedisDatabase
from deerflow_replica.counters import ModelHealth, RedisModelCounters
from deerflow_replica.counters._circuit import Circuit
from deerflow_replica.counters.redis import CounterKeys
from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.testing._counters_common import VOTER
from proxy import cutting_proxy

pytestmark = pytest.mark.anyio

PERMANENT = {"totals", "written", "folded", "folded_at", "votes", "vote_sums"}


async def test_all_keys_share_a_slot_and_only_totals_and_votes_are_for_good(redis_url: str, key_prefix: str) -> None:
    async with RedisModelCounters(redis_url, key_prefix=key_prefix) as counters:
        health = ModelHealth(counters)
        counters.record("m", "failure", error_type="auth")
        await counters.add_feedback("m", "positive", **VOTER)
        await counters.flush()
        await health.refresh()
        assert await counters.compact(dead_after_seconds=0) == 1
        counters.record("m", "success")
        await counters.flush()
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter(match=f"{key_prefix}*", count=1000))
        ending = {key.decode().rpartition("}:")[2].partition(":")[0]: client.ttl(key) for key in keys}
    assert set(ending) == PERMANENT | {"bucket", "circuits"}
    assert {name for name, ttl in ending.items() if ttl < 0} == PERMANENT
    assert ending["bucket"] >= 900
    assert len({key_slot(key) for key in keys}) == 1


@pytest.mark.parametrize("prefix", ["", "a{}b"])
def test_a_prefix_that_voids_the_slot_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="key_prefix"):
        RedisModelCounters("redis://h", key_prefix=prefix)


async def test_a_write_whose_reply_is_lost_counts_once(redis_url: str, key_prefix: str) -> None:
    async with cutting_proxy(redis_url) as proxy:
        database = RedisDatabase(proxy.url, timeout_seconds=60)
        counters = RedisModelCounters(key_prefix=key_prefix, flush_interval_seconds=3600, _database=database)
        async with counters, RedisModelCounters(redis_url, key_prefix=key_prefix) as sibling:
            counters.record("m", "success", duration_seconds=0.5)
            proxy.swallows_replies = True
            with pytest.raises(StoreUnavailableError):
                await counters.flush()
            assert proxy.swallowed
            assert (await sibling.totals())["m"].call_count == 1, "the write did not arrive"
            proxy.swallows_replies = False
            counters.record("m", "success", duration_seconds=0.5)
            proxy.cut()
            await counters.flush()
            totals = (await sibling.totals())["m"]
            assert (totals.call_count, totals.latency.sum_seconds) == (2, 1.0)
            assert await counters.totals() == await sibling.totals()


class Interrupted(RedisModelCounters):
    """Something happens after it has read what to fold."""

    between: Callable[[], Awaitable[object]] | None = None

    async def _asked(self, command: Command) -> Any:
        reply = await super()._asked(command)
        if command[0] == "HMGET" and self.between is not None:
            between, self.between = self.between, None
            await between()
        return reply


async def test_a_row_that_changes_while_it_is_folded_is_folded_as_it_is_then(redis_url: str, key_prefix: str) -> None:
    async with Interrupted(redis_url, key_prefix=key_prefix) as counters:
        async with RedisModelCounters(redis_url, key_prefix=key_prefix, flush_interval_seconds=3600) as dying:
            dying.record("m", "success")
            await dying.flush()
            dying.record("m", "success")
            counters.between = dying.flush
            assert await counters.compact(dead_after_seconds=0) == 1
        with redis.Redis.from_url(redis_url) as client:
            keys = CounterKeys(key_prefix)
            fields: Any = client.zrange(keys.folded_at, 0, -1)
            client.zadd(keys.folded_at, dict.fromkeys(fields, 1.0))
            await counters.compact()
            assert client.hlen(keys.totals) == 1
        assert (await counters.totals())["m"].call_count == 2


class Busy(RedisModelCounters):
    """A sibling counts whenever a batch was folded."""

    sibling: RedisModelCounters | None = None
    batches = 0

    async def _fold_batch(self, dead_after_seconds: float) -> int | None:
        folded = await super()._fold_batch(dead_after_seconds)
        self.batches += 1
        if self.sibling is not None and self.batches < 5:
            self.sibling.record("m", "success")
            await self.sibling.flush()
        return folded


async def test_folding_ends_though_others_go_on_counting(redis_url: str, key_prefix: str) -> None:
    async with (
        Busy(redis_url, key_prefix=key_prefix) as counters,
        RedisModelCounters(redis_url, key_prefix=key_prefix, flush_interval_seconds=3600) as sibling,
    ):
        sibling.record("m", "success")
        await sibling.flush()
        counters.sibling = sibling
        assert await counters.compact(dead_after_seconds=0) == 1
        assert (await counters.totals())["m"].call_count == 2


async def test_two_who_fold_at_once_fold_once(redis_url: str, key_prefix: str) -> None:
    async with Interrupted(redis_url, key_prefix=key_prefix) as counters:
        async with RedisModelCounters(redis_url, key_prefix=key_prefix) as dead:
            for name in ("m", "n"):
                dead.record(name, "success")
        async with RedisModelCounters(redis_url, key_prefix=key_prefix) as sibling:
            counters.between = partial(sibling.compact, dead_after_seconds=0)
            assert await counters.compact(dead_after_seconds=0) == 0
            totals = await sibling.totals()
    assert {name: total.call_count for name, total in totals.items()} == {"m": 1, "n": 1}


async def test_a_lease_whose_reply_is_lost_is_one_caller_s(redis_url: str, key_prefix: str) -> None:
    async with cutting_proxy(redis_url) as proxy:
        database = RedisDatabase(proxy.url, timeout_seconds=60)
        counters = RedisModelCounters(key_prefix=key_prefix, _database=database)
        async with counters, RedisModelCounters(redis_url, key_prefix=key_prefix) as sibling:
            await sibling._swap_circuit("m", 0, Circuit("auth", 1, 1.0))
            here: Any = ModelHealth(counters, refresh_seconds=3600)
            there = ModelHealth(sibling, refresh_seconds=3600)
            await asyncio.gather(here.refresh(), there.refresh())
            swap = counters._swap_circuit
            lossy: Any = counters  # loses the reply that says yes to what was done

            async def loses(*arguments: Any) -> bool:
                await swap(*arguments)
                del lossy._swap_circuit
                return False

            lossy._swap_circuit = loses
            permit = await here.acquire("m")
            assert permit.probe
            assert await there.acquire("m") is None


async def test_a_borrowed_client_is_left_as_it_is(redis_url: str, key_prefix: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url, decode_responses=True)
    async with client:
        async with RedisModelCounters(client=client, key_prefix=key_prefix) as counters:
            counters.record("m", "success")
            await counters.flush()
            assert (await counters.totals())["m"].call_count == 1
        assert await client.ping()
