"""The one response that lasts: frames as they come, heartbeats between them, and an end that can be told from a cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

EVENT_STREAM: Mapping[str, str] = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
HEARTBEAT = b": heartbeat\n\n"


class StreamCutError(Exception):
    """Raised after the body began, so that the server drops the connection without the final chunk.

    A client takes that for what it is, a stream that is not over, and reconnects; a clean end would end it for good.
    """


class StreamedResponse:
    """An ASGI response that sends each of `frames` as it comes and `heartbeat` every `heartbeat_seconds` besides.

    The body ends with its final chunk when `frames` ends. It ends without one, by `StreamCutError`, when `frames`
    raises that, after `cut()`, or when the client accepts nothing for `send_timeout_seconds`. `on_gone` is awaited
    when the client has left before the end.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        *,
        headers: Mapping[str, str],
        heartbeat: bytes = HEARTBEAT,
        heartbeat_seconds: float,
        send_timeout_seconds: float,
        on_gone: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._frames = frames
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._heartbeat = heartbeat
        self._heartbeat_seconds = heartbeat_seconds
        self._send_timeout_seconds = send_timeout_seconds
        self._on_gone = on_gone
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """End the body without its final chunk, so that the client goes elsewhere. Idempotent."""
        self._cut.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(send, self._send_timeout_seconds)
        async with aclosing(self._frames):
            await body.begin(self._headers)
            if scope["method"] == "HEAD":
                await body.end()
            else:
                await self._run(body, receive)

    async def _run(self, body: _Body, receive: Receive) -> None:
        gone = asyncio.ensure_future(_client_left(receive))
        writers = [asyncio.ensure_future(self._copy(body)), asyncio.ensure_future(self._beat(body))]
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            done, _ = await asyncio.wait({gone, cut, *writers}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(gone, cut, *writers)
        for writer in writers:
            if writer in done:
                return writer.result()
        if gone not in done:
            raise StreamCutError("the stream was cut for the client to go on at another replica")
        if self._on_gone is not None:
            await self._on_gone()
        return None

    async def _copy(self, body: _Body) -> None:
        async for frame in self._frames:
            await body.write(frame)
        await body.end()

    async def _beat(self, body: _Body) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self._heartbeat_seconds
            await asyncio.sleep(due - loop.time())
            await body.write(self._heartbeat)


class _Body:
    """A response body that is written by one writer at a time, each write within the timeout."""

    def __init__(self, send: Send, timeout_seconds: float) -> None:
        self._send = send
        self._timeout_seconds = timeout_seconds
        self._lock = asyncio.Lock()

    async def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": more})
            except TimeoutError:
                raise StreamCutError(f"the client accepted nothing for {self._timeout_seconds} s") from None

    async def end(self) -> None:
        await self.write(b"", more=False)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
