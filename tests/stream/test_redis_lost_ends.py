"""A server that crashed and came back without its last writes: a stream that had ended must still end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from deerflow_replica._drivers.embedded import EmbeddedValkey
from deerflow_replica.errors import StreamEndedError
from deerflow_replica.stream import END_SENTINEL, RedisStreamBridge, StreamGap
from deerflow_replica.testing._stream_common import ids, numbers, publish_all, read, until

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
Make = Callable[..., RedisStreamBridge]


class ForgetfulServer(EmbeddedValkey):
    """Comes back from `crash()` as it was at `remember()`."""

    def remember(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.save()

    async def crash(self) -> None:
        await asyncio.to_thread(self.kill)
        await asyncio.to_thread(self.start)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForgetfulServer]:
    with ForgetfulServer(data_dir=tmp_path / "valkey", settings={"appendonly": "no"}) as made:
        yield made


@pytest.fixture
def make(server: EmbeddedValkey, push: str) -> Make:
    return partial(
        RedisStreamBridge,
        redis_url=server.url,
        push=push,  # type: ignore[arg-type]  # one of its words, from the fixture
        check_interval_seconds=0.2,
        lease_seconds=0.6,
    )


async def test_end_alone_was_lost(server: ForgetfulServer, make: Make) -> None:
    async with make() as writer, make() as reader:
        await publish_all(writer, "live", 1)
        await publish_all(writer, "over", 3)
        known = await ids(reader, "over", 3)
        server.remember()
        await writer.publish_end("over", reason="why")
        await server.crash()
        assert numbers(await read(reader, "over")) == [0, 1, 2]
        assert await read(reader, "over", known[2]) == [END_SENTINEL]
        assert await reader.end_reason("over") == "why"
        await publish_all(writer, "live", 1, start=1, end=True)
        assert numbers(await read(reader, "live")) == [0, 1]


async def test_end_was_lost_with_events_before_it(server: ForgetfulServer, make: Make) -> None:
    async with make() as writer, make() as reader:
        await publish_all(writer, "live", 1)
        await publish_all(writer, "over", 2)
        server.remember()
        await publish_all(writer, "over", 3, start=2, end=True)
        known = await ids(reader, "over", 6)
        await server.crash()
        await until(lambda: reader.end_reason("over"))
        for seen in (0, 1, 2, 3):
            assert await read(reader, "over", known[seen]) == [StreamGap(known[seen], None, None)]
        assert await read(reader, "over", "0") == [StreamGap("0", None, None)]
        assert await read(reader, "over", known[4]) == [END_SENTINEL]
        assert await read(reader, "over", known[5]) == [END_SENTINEL]
        assert await read(reader, "over") == [END_SENTINEL]


async def test_an_end_by_somebody_else_was_lost(server: ForgetfulServer, make: Make) -> None:
    """The other is gone; the owner lives on, and was told."""
    async with make() as writer, make() as reader:
        await publish_all(writer, "live", 1)
        await publish_all(writer, "over", 2)
        server.remember()
        async with make() as other:
            await other.publish_end("over", reason="cancelled")
        with pytest.raises(StreamEndedError):
            await publish_all(writer, "over", 1, start=2)
        await server.crash()
        assert numbers(await read(reader, "over")) == [0, 1]
        assert await reader.end_reason("over") == "cancelled"


async def test_what_was_deleted_after_its_end_stays_deleted(server: ForgetfulServer, make: Make) -> None:
    async with make() as writer, make() as other:
        await publish_all(writer, "live", 1)
        await publish_all(writer, "over", 2, end=True)
        await other.cleanup("over")
        await publish_all(writer, "anew", 2, end=True)
        await other.cleanup("anew")
        await publish_all(other, "anew", 1)
        server.remember()
        await server.crash()
        await publish_all(writer, "lost", 1)
        server.remember()
        await publish_all(writer, "lost", 1, start=1, end=True)
        await server.crash()
        await until(lambda: writer.end_reason("lost"))  # by now all were looked at
        assert not await writer.stream_exists("over")
        assert await writer.end_reason("anew") is None
        assert numbers(await read(other, "anew", items=1)) == [0]
