"""A server whose reply gets lost: each call still ends as one success."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deerflow_replica.threads import PostgresThreadMap

pytestmark = pytest.mark.anyio


class CuttingProxy:
    """Between a client and PostgreSQL; `replies_left` replies on pass, the next one is lost with its connection."""

    def __init__(self, dsn: str) -> None:
        self._server = conninfo_to_dict(dsn)
        self.replies_left: int | None = None
        self.cuts = 0
        self.connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.ensure_future(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = str(self._server.get("host", "localhost")), int(self._server.get("port") or 5432)
        if host.startswith("/"):
            theirs = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            theirs = await asyncio.open_connection(host, port)
        pumps = [
            asyncio.ensure_future(self._ask(reader, theirs[1])),
            asyncio.ensure_future(self._reply(theirs[0], writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for side in (writer, theirs[1]):
            side.close()
            with contextlib.suppress(OSError):
                await side.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.replies_left == 0:
                self.replies_left = None
                self.cuts += 1
                return
            if self.replies_left is not None:
                self.replies_left -= 1
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[tuple[CuttingProxy, str]]:
    proxy = CuttingProxy(dsn)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield proxy, make_conninfo(dsn, host=host, port=port, sslmode="disable", gssencmode="disable")
    await asyncio.gather(*proxy.connections)


@pytest.mark.parametrize("replies", range(5))
async def test_each_call_is_one_success(postgres_dsn: str, postgres_schema: str, replies: int) -> None:
    async with proxied(postgres_dsn) as (proxy, dsn), PostgresThreadMap(dsn, schema=postgres_schema) as threads:
        proxy.replies_left = replies
        claim = await threads.claim("t", "ann")
        assert claim.granted
        assert claim.created
        proxy.replies_left = replies
        record = await threads.update("t", user_id="ann", metadata={"a": 1}, if_version=1)
        assert record is not None
        assert record.version == 2
        proxy.replies_left = replies
        assert await threads.touch("t", user_id="ann")
        assert (await threads.get("t", user_id="ann")) is not None
        proxy.replies_left = replies
        assert await threads.transfer("t", "ann", "bob", if_version=3)
        assert await threads.owner_of("t") == "bob"
        proxy.replies_left = replies
        assert await threads.delete("t", user_id="bob")
        assert await threads.owner_of("t") is None
    assert proxy.cuts >= 1


@pytest.mark.parametrize("replies", range(6))
async def test_a_delete_without_tombstone_is_one_success(postgres_dsn: str, postgres_schema: str, replies: int) -> None:
    async with (
        proxied(postgres_dsn) as (proxy, dsn),
        PostgresThreadMap(dsn, schema=postgres_schema, tombstone_seconds=0) as threads,
    ):
        await threads.claim("t", "ann")
        proxy.replies_left = replies
        assert await threads.delete("t", user_id="ann")
        assert (await threads.claim("t", "bob")).created
    assert proxy.cuts >= 1
