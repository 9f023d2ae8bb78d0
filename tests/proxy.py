"""A TCP proxy that cuts connections, refuses them, swallows and delays replies, and holds everything back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Link:
    """One connection through the proxy. What is set on it holds from the next piece of data on.

    `requests_left`, `replies_left`: so many bytes are let through, then the connection is cut.
    `seen` is the last that was sent to the server, to tell the connections of a client apart.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writers = [writer]
        self.swallows_replies = False
        self.reply_delay_seconds = 0.0
        self.requests_left = math.inf
        self.replies_left = math.inf
        self.flows = asyncio.Event()
        self.flows.set()
        self.seen = b""

    def cut(self) -> None:
        self.flows.set()
        for writer in self.writers:
            with contextlib.suppress(AttributeError):  # asyncio's, of one that closed when its buffer was empty
                writer.transport.abort()


class CuttingProxy:
    """`url` leads to the server of `target` (redis:// or unix://) through a loopback port.

    What is set here holds for every connection; `links` are those that are open, oldest first.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.links: list[Link] = []
        self.is_refusing = False
        self.swallows_replies = False
        self.reply_delay_seconds = 0.0
        self.cuts_at = b""  # a connection on which this is sent is cut, if it is not empty
        self.answer = b""  # given to every command in place of the server's, if it is not empty
        self.flows = asyncio.Event()
        self.flows.set()
        self.swallowed = 0
        self.accepted = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        credentials = f":{self._target.password}@" if self._target.password else ""
        return f"redis://{credentials}127.0.0.1:{port}/0"

    def cut(self) -> None:
        """Abort every connection that goes through."""
        for link in self.links:
            link.cut()

    def link(self, verb: bytes) -> Link | None:
        """The newest open connection on which the command was sent."""
        return next((link for link in reversed(self.links) if verb in link.seen), None)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.flows.set()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = Link(reader, writer)
        try:
            if not self.is_refusing:
                self.accepted += 1
                self.links.append(link)
                await self._join(link)
        except OSError:
            pass  # the server is away: the client sees its connection closed
        finally:
            link.cut()
            with contextlib.suppress(ValueError):
                self.links.remove(link)
            self._tasks.discard(task)

    async def _join(self, link: Link) -> None:
        far_reader, far_writer = await self._connect()
        link.writers.append(far_writer)
        await asyncio.gather(self._carry_requests(link, far_writer), self._carry_replies(link, far_reader))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.scheme == "unix":
            return await asyncio.open_unix_connection(self._target.path)
        return await asyncio.open_connection(self._target.hostname, self._target.port or 6379)

    async def _carry_requests(self, link: Link, far_writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while link.requests_left and (data := await link.reader.read(65536)):
                link.seen = (link.seen + data)[-65536:]
                if self.cuts_at and self.cuts_at in data:
                    link.cut()
                    break
                if self.answer:
                    commands = b"\r\n".join((b"", data)).count(b"\r\n*")
                    link.writers[0].write(self.answer * commands)
                    continue
                await self._held(link)
                data, link.requests_left = _let_through(data, link.requests_left)
                far_writer.write(data)
                await far_writer.drain()
        far_writer.close()  # what was let through arrives

    async def _carry_replies(self, link: Link, far_reader: asyncio.StreamReader) -> None:
        writer = link.writers[0]
        with contextlib.suppress(OSError):
            while link.replies_left and (data := await far_reader.read(65536)):
                if self.swallows_replies or link.swallows_replies:
                    self.swallowed += 1
                    break
                await self._held(link)
                data, link.replies_left = _let_through(data, link.replies_left)
                if delay := link.reply_delay_seconds or self.reply_delay_seconds:
                    # A part of it at once: a reply may come in any number of pieces.
                    writer.write(data[: len(data) // 2])
                    await asyncio.sleep(delay)
                    data = data[len(data) // 2 :]
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _held(self, link: Link) -> None:
        await self.flows.wait()
        await link.flows.wait()


def _let_through(data: bytes, left: float) -> tuple[bytes, float]:
    if len(data) < left:
        return data, left - len(data)
    return data[: int(left)], 0


@asynccontextmanager
async def cutting_proxy(target: str) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
