"""The one response that lasts: frames as they come, heartbeats between them, and an end that can be told from a cut."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol, Self

from starlette.types import Message, Receive, Scope, Send

EVENT_STREAM: Mapping[str, str] = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
HEARTBEAT = b": heartbeat\n\n"


class Frames(Protocol):
    """The body of a response, closed whether it was asked for or not."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def aclose(self) -> Awaitable[None]: ...


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
        frames: Frames,
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
        self._cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_event_stream(self) -> bool:
        return self._heartbeat is HEARTBEAT

    def cut(self) -> None:
        """End the body without its final chunk, so that the client goes elsewhere. Idempotent."""
        if not self._cut.done():
            self._cut.set_result(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._frames):
            with _Body(send, self._send_timeout_seconds) as body:
                if scope["method"] == "HEAD":
                    await body.begin(self._headers)
                    await body.end()
                else:
                    await self._run(body, receive)

    async def _run(self, body: _Body, receive: Receive) -> None:
        gone = asyncio.ensure_future(_client_left(receive))
        writers = [asyncio.ensure_future(self._copy(body)), asyncio.ensure_future(self._beat(body))]
        try:
            done, _ = await asyncio.wait({gone, self._cut, body.stalled, *writers}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(gone, *writers)
        for writer in writers:
            if writer in done:
                return writer.result()
        if body.stalled in done:
            raise StreamCutError(f"the client accepted nothing for {self._send_timeout_seconds} s")
        if gone not in done:
            raise StreamCutError("the stream was cut for the client to go on at another replica")
        if self._on_gone is not None:
            await self._on_gone()
        return None

    async def _copy(self, body: _Body) -> None:
        await body.begin(self._headers)
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
    """A response body that is written by one writer at a time. `stalled` is done when a write takes too long.

    One timer looks after all writes: a timeout of its own for each would cost more than the write.
    """

    def __init__(self, send: Send, timeout_seconds: float) -> None:
        self._send = send
        self._timeout_seconds = timeout_seconds
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._writing_since = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.stalled: asyncio.Future[None] = self._loop.create_future()

    def __enter__(self) -> Self:
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._sent({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, chunk: bytes) -> None:
        await self._sent({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        await self._sent({"type": "http.response.body", "body": b"", "more_body": False})

    async def _sent(self, message: Message) -> None:
        async with self._lock:
            self._writing_since = self._loop.time()
            await self._send(message)
            self._writing_since = math.inf

    def _look(self) -> None:
        now = self._loop.time()
        due = min(self._writing_since, now) + self._timeout_seconds
        if due > now:
            self._timer = self._loop.call_at(due, self._look)
        else:
            self.stalled.set_result(None)


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
