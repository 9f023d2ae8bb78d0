"""The lasting response under a real server: what its clients see on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from deerflow_replica.gateway.sse import EVENT_STREAM, StreamCutError, StreamedResponse
from deerflow_replica.testing._contract import for_one_of
from gateway.serving import served
from waiting import eventually

pytestmark = pytest.mark.anyio

FRAME = b"event: e\ndata: 1\nid: 1-0\n\n"


def _app(response: Callable[[], StreamedResponse]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await response()(scope, receive, send)

    return app


def _response(frames: AsyncGenerator[bytes], **options: Any) -> StreamedResponse:
    defaults: dict[str, Any] = {"heartbeat_seconds": 60.0, "send_timeout_seconds": 30.0}
    return StreamedResponse(frames, headers=EVENT_STREAM, **{**defaults, **options})


class Source:
    """Frames that a test hands out, and whether somebody still waits for them."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = False

    async def frames(self) -> AsyncGenerator[bytes]:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


@asynccontextmanager
async def _streaming(response: StreamedResponse) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
    async with (
        served(_app(lambda: response)) as url,
        httpx.AsyncClient(timeout=60) as client,
        client.stream("GET", url) as answer,
    ):
        yield answer, answer.aiter_bytes()


async def test_the_end_of_the_frames_is_a_clean_end() -> None:
    source = Source()
    for item in (FRAME, FRAME, None):
        source.queue.put_nowait(item)
    async with _streaming(_response(source.frames())) as (answer, chunks):
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert b"".join([chunk async for chunk in chunks]) == FRAME + FRAME
    assert source.closed


async def test_a_cut_is_no_clean_end() -> None:
    source = Source()
    source.queue.put_nowait(FRAME)
    response = _response(source.frames())
    async with _streaming(response) as (_, chunks):
        assert await anext(chunks) == FRAME
        response.cut()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(chunks)
    assert source.closed


async def test_a_failing_source_is_no_clean_end() -> None:
    source = Source()
    source.queue.put_nowait(FRAME)
    async with _streaming(_response(source.frames())) as (_, chunks):
        assert await anext(chunks) == FRAME
        source.queue.put_nowait(StreamCutError("gone"))
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(chunks)


async def test_heartbeats_come_at_a_regular_pace_also_between_frames() -> None:
    source = Source()
    began = time.monotonic()
    async with _streaming(_response(source.frames(), heartbeat_seconds=0.05)) as (_, chunks):
        beats, frames = 0, 0
        async for chunk in chunks:
            frames += chunk.count(FRAME)
            beats += chunk.count(b": heartbeat\n\n")
            source.queue.put_nowait(FRAME)
            if beats >= 10:
                break
    assert frames > 0
    assert time.monotonic() - began >= 10 * 0.05  # never early; how late is the machine's affair


async def test_a_late_heartbeat_does_not_put_off_the_next_ones() -> None:
    """The pace is kept by the clock, not by the sum of the delays."""
    assert await for_one_of((1, 2, 3), _keeps_its_pace)


async def _keeps_its_pace(_: float) -> bool:
    source, beats, released = Source(), 0, 0.0

    async def send(message: Any) -> None:
        nonlocal beats, released
        beats += message.get("body") == b": heartbeat\n\n"
        if beats == 1 and not released:
            taken = time.monotonic()  # a client that is slow to take the first, until 19 more are due
            await eventually(lambda: time.monotonic() - taken > 1.0)
            released = time.monotonic()
        if beats == 20:
            source.queue.put_nowait(None)

    async def receive() -> Any:
        return await asyncio.Event().wait()

    response = _response(source.frames(), heartbeat_seconds=0.05)
    await response({"type": "http", "method": "GET"}, receive, send)
    return time.monotonic() - released < 19 * 0.05 / 2


async def test_the_client_that_leaves_ends_the_reading_and_is_reported() -> None:
    source = Source()
    left: list[str] = []

    async def gone() -> None:
        left.append("gone")

    source.queue.put_nowait(FRAME)
    async with served(_app(lambda: _response(source.frames(), on_gone=gone))) as url:
        async with httpx.AsyncClient() as client, client.stream("GET", url) as answer:
            assert await anext(answer.aiter_bytes()) == FRAME
        await eventually(lambda: source.closed and left)
    assert left == ["gone"]


async def test_a_client_that_accepts_nothing_is_cut() -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 65536

    sends = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sends.set()
            await asyncio.Event().wait()

    async def receive() -> Any:
        return await asyncio.Event().wait()

    response = _response(endless(), send_timeout_seconds=0.1)
    with pytest.raises(StreamCutError, match="accepted nothing"):
        await response({"type": "http", "method": "GET"}, receive, send)
    assert sends.is_set()


async def test_head_has_the_headers_and_no_body() -> None:
    source = Source()
    async with served(_app(lambda: _response(source.frames()))) as url, httpx.AsyncClient() as client:
        answer = await client.head(url)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b""
