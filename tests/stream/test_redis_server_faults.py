"""A server that restarts, forgets, is full, refuses or loads, while runs are written and read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from deerflow_replica._drivers.embedded import EmbeddedValkey
from deerflow_replica.errors import StreamError, StreamUnavailableError
from deerflow_replica.stream import END_SENTINEL, HEARTBEAT_SENTINEL, RedisStreamBridge, StreamGap
from deerflow_replica.testing._stream_common import ids, numbers, publish_all, read, reading, until
from proxy import cutting_proxy

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
Make = Callable[..., RedisStreamBridge]
NOT_NOW = {
    "LOADING": b"-LOADING Redis is loading the dataset in memory\r\n",
    "READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "OOM": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "BUSY": b"-BUSY Redis is busy running a script.\r\n",
    "MASTERDOWN": b"-MASTERDOWN Link with MASTER is down.\r\n",
    "MISCONF": b"-MISCONF Errors writing to the AOF file: No space left on device\r\n",
}


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    """One that a test may fill, empty and restart; it keeps nothing."""
    with EmbeddedValkey() as made:
        yield made


@pytest.fixture
def make(server: EmbeddedValkey, push: str) -> Make:
    return _made(server, push)


def _made(server: EmbeddedValkey, push: str) -> Make:
    return partial(
        RedisStreamBridge,
        redis_url=server.url,
        push=push,  # type: ignore[arg-type]  # one of its words, from the fixture
        check_interval_seconds=0.2,
        queue_maxsize=5000,
    )


@pytest.mark.parametrize("is_killed", [False, True])
async def test_restarts_with_data_lose_nothing(tmp_path: Path, push: str, is_killed: bool) -> None:
    with EmbeddedValkey(data_dir=tmp_path / "valkey", settings={"appendfsync": "always"}) as server:
        make = _made(server, push)
        async with make() as writer, make() as reader:
            found = [asyncio.ensure_future(read(reader, run)) for run in "ab"]
            for start in (0, 100, 200):
                if is_killed:
                    await asyncio.to_thread(server.kill)
                away = asyncio.ensure_future(asyncio.to_thread(server.start if is_killed else server.restart))
                for number in range(start, start + 100):
                    await asyncio.gather(*(writer.publish(run, "n", number) for run in "ab"))
                await away
                await writer.flush()
            await asyncio.gather(*map(writer.publish_end, "ab"))
            for items in await asyncio.gather(*found):
                assert numbers(items) == list(range(300))
                assert items[-1] is END_SENTINEL
            assert numbers(await read(reader, "a", "0")) == list(range(300))


async def test_a_restart_without_data_is_a_gap_and_a_new_stream(server: EmbeddedValkey, make: Make) -> None:
    async with make() as writer, make() as reader, reading(reader, "r") as next_item:
        await publish_all(writer, "r", 5)
        events = [await next_item() for _ in range(5)]
        await asyncio.to_thread(server.restart)
        await publish_all(writer, "r", 3, start=5, end=True)
        assert await next_item() == StreamGap(events[-1].id, None, None)
        late = (await read(reader, "r", events[2].id))[0]
        assert isinstance(late, StreamGap)
        assert late.requested_event_id == events[2].id
        assert numbers(await read(reader, "r", "0")) == [5, 6, 7]


async def test_flushall_among_publishers_and_readers_ends_every_reader(server: EmbeddedValkey, make: Make) -> None:
    runs = [f"r{number}" for number in range(20)]
    with redis.Redis.from_url(server.url) as client:
        async with make() as one, make() as two, make() as reader:
            await asyncio.gather(*(publish_all(one, run, 5) for run in runs))
            before = {run: (await ids(reader, run, 5))[-1] for run in runs}
            live = [asyncio.ensure_future(read(reader, run, before[run])) for run in runs]
            await until(lambda: reader.stats().topics == len(runs))
            half = runs[::2]
            work = [asyncio.ensure_future(publish_all(two, run, 50)) for run in half]
            client.flushall()
            await asyncio.gather(*work)
            client.flushall()
            await asyncio.gather(*(publish_all(one, run, 5, start=5, end=True) for run in half))
            for items in await asyncio.gather(*live):
                # What came before the flush, from the one process or the other, then one gap; nothing of later streams.
                gap = items.pop()
                assert isinstance(gap, StreamGap)
                data = numbers(items)
                assert data == list(range(len(data)))
            for run in half:
                assert numbers(await read(reader, run)) == [5, 6, 7, 8, 9]
            for run in runs[1::2]:
                assert not await reader.stream_exists(run)


async def test_evicted_keys_are_a_gap_and_never_a_wrong_order(server: EmbeddedValkey, make: Make) -> None:
    filler = "x" * 20_000
    with redis.Redis.from_url(server.url) as client:
        async with make(lease_seconds=None) as writer, make(lease_seconds=None) as reader, AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(reading(reader, f"r{run}")) for run in range(10)]
            await asyncio.gather(*(writer.publish(f"r{run}", "n", [0]) for run in range(10)))
            # Who has read from a stream misses it; for others, one that is made anew begins where it begins.
            assert [(await next_item()).data for next_item in feeds] == [[0]] * 10
            used: Any = client.info("memory")
            client.config_set("maxmemory", used["used_memory"] + 4 * 2**20)
            client.config_set("maxmemory-policy", "allkeys-random")
            found = [asyncio.ensure_future(_to_the_end(next_item)) for next_item in feeds]
            for number in range(1, 80):
                await asyncio.gather(*(writer.publish(f"r{run}", "n", [number, filler]) for run in range(10)))
                await writer.flush()
            await asyncio.gather(*(writer.publish_end(f"r{run}") for run in range(10)))
            gaps = 0
            for items in await asyncio.gather(*found):
                last = items.pop()
                gaps += isinstance(last, StreamGap)
                seen = [item.data[0] for item in items]
                assert seen == list(range(1, 1 + len(seen)))
                assert isinstance(last, StreamGap) or len(seen) == 79
            evicted: Any = client.info("stats")
            assert evicted["evicted_keys"] > 0
            assert gaps > 0


async def _to_the_end(next_item: Callable[[], Any]) -> list[Any]:
    """END or a gap is the last."""
    items = [await next_item()]
    while items[-1] is not END_SENTINEL and not isinstance(items[-1], StreamGap):
        items.append(await next_item())
    return items


@pytest.mark.parametrize("part", ["stream", "meta"])
async def test_the_eviction_of_either_key_of_a_run_ends_its_readers(
    server: EmbeddedValkey, make: Make, part: str
) -> None:
    with redis.Redis.from_url(server.url) as client:
        stream = "deerflow:stream_bridge:r"
        keys = {"stream": stream, "meta": f"deerflow:stream_bridge.meta:{{{stream}}}"}
        async with make() as writer, make() as reader, reading(reader, "r") as next_item:
            await publish_all(writer, "r", 3)
            events = [await next_item() for _ in range(3)]
            assert client.delete(keys[part]) == 1
            assert await next_item() == StreamGap(events[-1].id, None, None)
            await publish_all(writer, "r", 3, start=3, end=True)
            assert numbers(await read(reader, "r", "0")) == [3, 4, 5]


async def test_a_full_server_delays_and_loses_nothing(server: EmbeddedValkey, make: Make) -> None:
    with redis.Redis.from_url(server.url) as client:
        async with make(publish_timeout_seconds=0.3) as writer, make() as reader:
            found = asyncio.ensure_future(read(reader, "r"))
            for number in range(3):
                await writer.publish("r", "n", number)
            await until(lambda: not writer.stats().pending_events)
            client.config_set("maxmemory", 1)
            for number in range(3, 300):
                await writer.publish("r", "n", number)
            with pytest.raises(StreamUnavailableError):
                await writer.flush()
            with pytest.raises(StreamUnavailableError):
                await writer.publish_end("r")
            client.config_set("maxmemory", 0)
            await until(lambda: not writer.stats().pending_events)
            await reader.publish_end("r")
            assert numbers(await found) == list(range(300))


async def test_a_server_that_is_a_replica_for_a_while_is_retried(server: EmbeddedValkey, make: Make) -> None:
    with redis.Redis.from_url(server.url) as client:
        async with make() as writer, make() as reader:
            found = asyncio.ensure_future(read(reader, "r"))
            await publish_all(writer, "r", 3)
            client.execute_command("CONFIG", "SET", "replica-read-only", "yes", "replica-serve-stale-data", "yes")
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            for number in range(3, 20):
                await writer.publish("r", "n", number)
            await until(lambda: writer.stats().retried > 1)
            client.execute_command("REPLICAOF", "NO", "ONE")
            await writer.publish_end("r")
            assert numbers(await found) == list(range(20))


async def test_a_server_that_loads_for_long_is_waited_for(tmp_path: Path, push: str) -> None:
    settings: dict[str, str | int] = {
        "appendfsync": "always",
        "key-load-delay": 5000,  # microseconds
        "loading-process-events-interval-bytes": 1024,
    }
    with EmbeddedValkey(data_dir=tmp_path / "valkey", settings=settings) as server:
        make = _made(server, push)
        with redis.Redis.from_url(server.url) as client:
            async with make() as writer, make() as reader:
                found = asyncio.ensure_future(read(reader, "r"))
                await publish_all(writer, "r", 3)
                client.mset({f"key-{number}": number for number in range(2000)})
                client.bgrewriteaof()
                await until(lambda: _is_rewritten(client))
                away = asyncio.ensure_future(asyncio.to_thread(server.restart))
                await until(lambda: _is_loading(client))
                await writer.publish("r", "n", 3)
                assert not away.done()
                client.config_set("key-load-delay", 0)
                await away
                await writer.publish_end("r")
                assert numbers(await found) == list(range(4))


def _is_rewritten(client: redis.Redis) -> bool:
    found: Any = client.info("persistence")
    return not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]


def _is_loading(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.BusyLoadingError:
        return True
    except redis.ConnectionError:
        return False
    return False


@pytest.mark.parametrize("answer", NOT_NOW.values(), ids=list(NOT_NOW))
async def test_what_says_not_now_is_asked_again(server: EmbeddedValkey, make: Make, answer: bytes) -> None:
    async with (
        cutting_proxy(server.url) as proxy,
        make(redis_url=proxy.url) as writer,
        make(redis_url=proxy.url, check_interval_seconds=0.1) as reader,
        reading(reader, "r") as next_item,
    ):
        await publish_all(writer, "r", 1)
        assert (await next_item()).data == 0
        proxy.answer = answer
        for number in range(1, 5):
            await writer.publish("r", "n", number)
        await until(lambda: writer.stats().retried > 1)
        await until(lambda: reader.stats().reconnects > 0)
        assert await next_item(beats=True) is HEARTBEAT_SENTINEL
        proxy.answer = b""
        assert [(await next_item()).data for _ in range(4)] == [1, 2, 3, 4]
        await writer.publish_end("r")
        assert await next_item() is END_SENTINEL


async def test_a_key_that_may_not_be_written_fails_that_run_alone(server: EmbeddedValkey, make: Make) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser(
            "narrow", enabled=True, nopass=True, keys=["p:good*", "p.meta:{p:good*", "p.owner:*"], channels=["*"],
            categories=["+@all"],
        )  # fmt: skip
    borrowed = AsyncRedis.from_url(server.url, username="narrow", password="any")  # noqa: S106  # any will do
    try:
        async with (
            make(redis_url=None, client=borrowed, key_prefix="p") as bridge,
            make(key_prefix="p") as other,
        ):
            await asyncio.gather(*(bridge.publish(run, "n", 0) for run in ("good", "bad", "good-too")))
            with pytest.raises(StreamError, match=r"bad.*refused"):
                await bridge.flush("bad")
            await asyncio.gather(bridge.publish_end("good"), bridge.publish_end("good-too"))
            assert numbers(await read(bridge, "good")) == numbers(await read(other, "good-too")) == [0]
            with pytest.raises(StreamError, match=r"bad.*cannot be read"):
                await read(bridge, "bad")
    finally:
        await borrowed.aclose()


async def test_a_key_of_another_type_ends_only_its_own_readers(server: EmbeddedValkey, make: Make) -> None:
    with redis.Redis.from_url(server.url) as client:
        async with make() as writer, make() as reader, reading(reader, "good") as next_item:
            client.set("deerflow:stream_bridge:bad", "no stream")
            await publish_all(writer, "good", 1)
            with pytest.raises(StreamError, match="bad"):
                await read(reader, "bad")
            with pytest.raises(StreamError, match="bad"):
                await publish_all(writer, "bad", 1)
            assert (await next_item()).data == 0
            await publish_all(writer, "good", 1, start=1, end=True)
            assert (await next_item()).data == 1
            assert await next_item() is END_SENTINEL
            assert reader.stats().reconnects == 0
