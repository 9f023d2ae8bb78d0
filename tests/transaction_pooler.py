"""A pooler of PostgreSQL connections like PgBouncer with `pool_mode = transaction`, in its least form.

A client has a server's connection from its first message until the server is idle again. Nobody resets anything, and
names of prepared statements are not rewritten: what a client leaves on a connection, the next one meets.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_SSL_REQUEST, _GSS_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102


class Connection:
    """Messages of a client or of the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def startup(self) -> bytes:
        """The body of the first message, once encryption was refused."""
        while True:
            (length,) = struct.unpack("!I", await self.reader.readexactly(4))
            body = await self.reader.readexactly(length - 4)
            (code,) = struct.unpack("!I", body[:4])
            if code not in (_SSL_REQUEST, _GSS_REQUEST):
                return body
            self.writer.write(b"N")

    async def message(self) -> bytes:
        header = await self.reader.readexactly(5)
        (length,) = struct.unpack("!I", header[1:])
        return header + await self.reader.readexactly(length - 4)


class TransactionPooler:
    def __init__(self, host: str, port: int, size: int) -> None:
        self._host, self._port, self._size = host, port, size
        self._idle: asyncio.Queue[Connection] = asyncio.Queue()
        self._all: list[Connection] = []
        self._greeting = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.clients = 0

    async def start(self, startup: bytes) -> None:
        for _ in range(self._size):
            self._idle.put_nowait(await self._logged_in(startup))
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._all:
            server.writer.close()
        await self._server.wait_closed()

    async def _logged_in(self, startup: bytes) -> Connection:
        opened = (
            await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
            if self._host.startswith("/")
            else await asyncio.open_connection(self._host, self._port)
        )
        server = Connection(*opened)
        self._all.append(server)
        server.writer.write(struct.pack("!I", len(startup) + 4) + startup)
        greeting = b""
        while not greeting.endswith(b"Z\0\0\0\5I"):
            greeting += await server.message()
        self._greeting = greeting
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        client = Connection(reader, writer)
        try:
            startup = await client.startup()
            if struct.unpack("!I", startup[:4]) == (_CANCEL_REQUEST,):
                return
            self.clients += 1
            writer.write(self._greeting)
            while (first := await client.message())[:1] != b"X":
                await self._transaction(client, first)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _transaction(self, client: Connection, message: bytes) -> None:
        server = await self._idle.get()
        answers = asyncio.create_task(self._answers(server, client))
        try:
            server.writer.write(message)
            while not answers.done():
                question = asyncio.ensure_future(client.message())
                await asyncio.wait([question, answers], return_when=asyncio.FIRST_COMPLETED)
                if question.done():
                    server.writer.write(question.result())
                    await server.writer.drain()
                else:
                    question.cancel()
                    with suppress(asyncio.CancelledError):
                        await question
        except BaseException:  # the client went in the middle
            answers.cancel()
            server.writer.close()
            raise
        self._idle.put_nowait(server)

    async def _answers(self, server: Connection, client: Connection) -> None:
        while True:
            answer = await server.message()
            client.writer.write(answer)
            if answer[:1] == b"Z" and answer[5:6] == b"I":
                await client.writer.drain()
                return


@asynccontextmanager
async def transaction_pooler(
    host: str, port: int, startup: bytes, *, size: int = 1
) -> AsyncIterator[TransactionPooler]:
    pooler = TransactionPooler(host, port, size)
    await pooler.start(startup)
    try:
        yield pooler
    finally:
        await pooler.stop()


def startup_message(**parameters: str) -> bytes:
    pairs = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
    return struct.pack("!I", 196608) + pairs + b"\0"
