"""What is on the server: names, layout, and a time to live on every key."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from deerflow_replica.errors import ConfigError
from deerflow_replica.stream import RedisStreamBridge
from deerflow_replica.stream.keys import StreamKeys
from deerflow_replica.testing._stream_common import publish_all, read, until

pytestmark = pytest.mark.anyio


async def test_every_key_has_a_time_to_live_that_rolls(redis_url: str, key_prefix: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        async with RedisStreamBridge(
            redis_url=redis_url, key_prefix=f"{key_prefix}:", stream_ttl_seconds=100, lease_seconds=100
        ) as bridge:
            await publish_all(bridge, "r", 3)
            await publish_all(bridge, "ended", 3, end=True)
            await bridge.publish_end("empty")
            await publish_all(bridge, "cleaned", 3)
            await bridge.cleanup("cleaned", delay=50)
            found = {key.decode(): client.pttl(key) for key in client.scan_iter(f"{key_prefix}*")}
            runs = ["r", "ended", "empty", "cleaned"]
            streams = {f"{key_prefix}:{run}" for run in runs}
            assert {name for name in found if ".owner:" not in name} == streams | {
                f"{key_prefix}.meta:{{{name}}}" for name in streams
            }
            assert all(left > 0 for left in found.values()), found
            assert [80_000 <= left <= 100_000 for name, left in found.items() if ".owner:" in name] == [True]
            assert 80_000 <= found[f"{key_prefix}:r"] <= 100_000
            assert found[f"{key_prefix}:cleaned"] <= 50_000
            names = (f"{key_prefix}:r", f"{key_prefix}.meta:{{{key_prefix}:r}}")
            seconds, micros = client.time()
            due = seconds * 1000 + micros // 1000 + 79_000  # a fifth is over
            for name in names:
                client.pexpireat(name, due)
            client.hset(names[1], "expires_at", due)
            await publish_all(bridge, "r", 1)
            assert all(client.pttl(name) >= 80_000 for name in names)


async def test_who_has_nothing_to_publish_any_more_holds_no_lease(redis_url: str, key_prefix: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        async with RedisStreamBridge(redis_url=redis_url, key_prefix=key_prefix, lease_seconds=0.5) as bridge:
            await publish_all(bridge, "r", 1, end=True)
            await until(lambda: not list(client.scan_iter(f"{key_prefix}.owner:*")))
            await publish_all(bridge, "next", 1)
            await until(lambda: list(client.scan_iter(f"{key_prefix}.owner:*")))


async def test_streams_have_the_fields_that_deerflow_reads(redis_url: str, key_prefix: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        async with RedisStreamBridge(redis_url=redis_url, key_prefix=key_prefix) as bridge:
            await bridge.publish("r", "values", {"a": "ü"})
            await bridge.publish_end("r", reason="why")
            entries: Any = client.xrange(f"{key_prefix}:r")
            (first, event), (second, end) = entries
            assert (event["kind"], event["event"], json.loads(event["data"])) == ("event", "values", {"a": "ü"})
            assert (end["kind"], end["reason"]) == ("end", "why")
            assert (first.rpartition("-")[2], second.rpartition("-")[2]) == ("0", "1")


_RUNS = st.text(st.sampled_from("{}ab:") | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@pytest.mark.parametrize("prefix", ["deerflow:stream_bridge", "{app}:streams:", "a{b}{", "a}b", "ü"])
@given(run_ids=st.lists(_RUNS, unique=True, max_size=5))
@example(run_ids=["x", "{x}", "{}", "a{b}c{d}", "}{", "a{", "a}", "{}{x}", "{{x}}", "p:{x}", "{x}:{x}"])
def test_the_keys_of_a_run_share_a_slot(prefix: str, run_ids: list[str]) -> None:
    keys = StreamKeys(prefix)
    streams, metas = zip(*map(keys.of_run, run_ids), strict=True) if run_ids else ((), ())
    assert [keys.run_of(stream) for stream in streams] == run_ids
    assert [key_slot(stream.encode()) for stream in streams] == [key_slot(meta.encode()) for meta in metas]
    assert len({*streams, *metas}) == 2 * len(run_ids)
    assert streams == tuple(f"{prefix.rstrip(':')}:{run_id}" for run_id in run_ids)
    assert all(meta.startswith(f"{prefix.rstrip(':')}.meta:{{") for meta in metas)


@pytest.mark.parametrize("prefix", ["{}", "a{b", "{}{a}", "{"])
def test_a_prefix_that_makes_every_tag_void_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="key_prefix"):
        RedisStreamBridge(key_prefix=prefix)


async def test_a_run_may_have_any_name(redis_url: str, key_prefix: str) -> None:
    async with RedisStreamBridge(redis_url=redis_url, key_prefix=key_prefix) as bridge:
        for run in ("{x}", "{}", "}{", "a b\n", "*", "ü{"):
            await publish_all(bridge, run, 2, end=True)
            assert len(await read(bridge, run)) == 3
