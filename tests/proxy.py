"""A TCP proxy that cuts connections, refuses them, swallows replies and holds everything back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class CuttingProxy:
    """`url` leads to the server of `target` (redis:// or unix://) through a loopback port."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_refusing = False
        self.swallows_replies = False
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
        for writer in self._writers:
            writer.transport.abort()

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
        try:
            if self.is_refusing:
                writer.transport.abort()
                return
            self.accepted += 1
            far_reader, far_writer = await self._connect()
            self._writers |= {writer, far_writer}
            await asyncio.gather(
                self._copy(reader, far_writer, is_reply=False), self._copy(far_reader, writer, is_reply=True)
            )
        finally:
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.scheme == "unix":
            return await asyncio.open_unix_connection(self._target.path)
        return await asyncio.open_connection(self._target.hostname, self._target.port or 6379)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if is_reply and self.swallows_replies:
                    self.swallowed += 1
                    break
                await self.flows.wait()
                writer.write(data)
                await writer.drain()
        for end in list(self._writers):
            if end is writer:
                end.transport.abort()
                self._writers.discard(end)


@asynccontextmanager
async def cutting_proxy(target: str) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
