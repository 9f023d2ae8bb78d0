"""Hundreds of clients at two replicas, who leave and come back all the time: each gets every event once."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import open_replica
from gateway.graphs import counting_graph
from gateway.serving import served

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

RUNS, READERS_EACH, EVENTS = 20, 12, 60
FRAME = re.compile(rb'event: custom\ndata: \{"n":(\d+)\}\nid: (\S+)\n')
CLEAN_END = b"0\r\n\r\n"


@pytest.fixture
async def urls(
    postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str
) -> AsyncIterator[tuple[str, ...]]:
    config = AppConfig.from_mapping(
        {
            "database": {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema},
            "stream_bridge": {"type": "redis", "redis_url": redis_url, "key_prefix": key_prefix},
            "user_thread_mapping": {"postgres_schema": postgres_schema},
            "model_feedback": {"postgres_schema": postgres_schema},
        }
    )
    config = config.evolve({"stream_bridge": {"queue_maxsize": 10_000}})
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            replica = await stack.enter_async_context(open_replica(config))
            found.append(await stack.enter_async_context(served(create_app(replica, {"agent": counting_graph()}))))
        yield tuple(found)


@asynccontextmanager
async def _answer(url: str, path: str, cursor: str) -> AsyncIterator[asyncio.StreamReader]:
    """What a server sends from its head on; left by closing the socket."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        head = f"GET {path} HTTP/1.1\r\nhost: replica\r\nconnection: close\r\nlast-event-id: {cursor}\r\n\r\n"
        writer.write(head.encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        yield reader
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _events(url: str, path: str, cursor: str) -> AsyncGenerator[tuple[int, str]]:
    """Numbers and ids to the end, which must be a clean one."""
    async with _answer(url, path, cursor) as reader:
        unread = b""
        while data := await reader.read(65536):
            frames, end, rest = (unread + data).rpartition(b"\n\n")
            unread = rest
            for number, event_id in FRAME.findall(frames + end):
                yield int(number), event_id.decode()
        assert unread.endswith(CLEAN_END) or unread == b"", unread


async def _followed(urls: tuple[str, ...], path: str, dice: random.Random) -> list[int]:
    """The numbers that a client gets that leaves after some, and goes on elsewhere with the last id it got."""
    numbers: list[int] = []
    cursor = "-1"
    while True:
        patience = dice.choice((3, 10, 30, 1000))
        async with aclosing(_events(dice.choice(urls), path, cursor)) as events:
            async for number, event_id in events:
                numbers.append(number)
                cursor = event_id
                patience -= 1
                if not patience:
                    break
            else:
                return numbers


async def test_hundreds_of_readers_get_every_event_once(urls: tuple[str, ...]) -> None:
    body: dict[str, Any] = {
        "assistant_id": "agent", "input": {"count": EVENTS, "pause": 0.03}, "stream_mode": "custom",
    }  # fmt: skip
    async with httpx.AsyncClient(base_url=urls[0], timeout=30) as client:
        places = []
        for _ in range(RUNS):
            thread_id = (await client.post("/threads", json={})).json()["thread_id"]
            created = await client.post(f"/threads/{thread_id}/runs", json=body)
            places.append(created.headers["content-location"] + "/stream")
    followed = await asyncio.gather(
        *(_followed(urls, place, random.Random(f"{place} {n}")) for place in places for n in range(READERS_EACH))
    )
    assert len(followed) == RUNS * READERS_EACH
    assert [numbers for numbers in followed if numbers != list(range(EVENTS))] == []
