"""Hundreds of clients at two replicas, who leave and come back all the time: each gets every event once."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.replicas import two_replicas

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

RUNS, READERS_EACH, EVENTS = 20, 12, 40
FRAME = re.compile(rb'event: custom\ndata: \{"n":(\d+)\}\nid: (\S+)\n')
CLEAN_END = b"0\r\n\r\n"


@asynccontextmanager
async def _answer(url: str, path: str, cursor: str) -> AsyncIterator[asyncio.StreamReader]:
    """What a server sends from its head on; left by closing the socket."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        lines = [f"GET {path} HTTP/1.1", "host: replica", "connection: close", "x-user: alice"]
        writer.write("\r\n".join([*lines, f"last-event-id: {cursor}", "", ""]).encode())
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


async def _followed(urls: list[str], path: str, dice: random.Random) -> list[int]:
    """The numbers that a client gets that leaves after some, and goes on elsewhere with the last id it got."""
    numbers: list[int] = []
    cursor = "-1"
    while True:
        patience = dice.choice((5, 20, 1000))
        async with aclosing(_events(dice.choice(urls), path, cursor)) as events:
            async for number, event_id in events:
                numbers.append(number)
                cursor = event_id
                patience -= 1
                if not patience:
                    break
            else:
                return numbers


async def test_hundreds_of_readers_get_every_event_once(shared: dict[str, Any]) -> None:
    async with two_replicas(shared) as urls:
        places = [await _begun(urls[0]) for _ in range(RUNS)]
        followed = await asyncio.gather(
            *(_followed(urls, place, random.Random(f"{n}")) for n, place in enumerate(places * READERS_EACH))
        )
    assert len(followed) == RUNS * READERS_EACH
    assert [numbers for numbers in followed if numbers != list(range(EVENTS))] == []


async def _begun(url: str) -> str:
    """Where the stream of a new run is."""
    body = {"assistant_id": "agent", "input": {"count": EVENTS, "pause": 0.03}, "stream_mode": "custom"}
    async with httpx.AsyncClient(base_url=url, headers={"x-user": "alice"}, timeout=120) as client:
        thread_id = (await client.post("/threads", json={})).json()["thread_id"]
        created = await client.post(f"/threads/{thread_id}/runs", json=body)
        return f"{created.headers['content-location']}/stream"
