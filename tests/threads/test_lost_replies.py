"""A server whose reply gets lost: each call still ends as one success. One that says nothing, or goes, is told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.threads import MongoThreadMap, PostgresThreadMap, RedisThreadMap, ThreadMap
from waiting import eventually

pytestmark = pytest.mark.anyio

Build: TypeAlias = Callable[..., ThreadMap]


class CuttingProxy:
    """Between a client and a server; `replies_left` replies on pass, the next one is lost with its connection."""

    def __init__(self, address: str | tuple[str, int]) -> None:
        self._address = address
        self.replies_left: int | None = None
        self.cuts = 0
        self.is_silent = False
        self.is_refusing = False
        self.ended = asyncio.get_running_loop().create_future()
        self.connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.ensure_future(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_refusing:
            writer.close()
            await writer.wait_closed()
            return
        if isinstance(self._address, str):
            theirs = await asyncio.open_unix_connection(self._address)
        else:
            theirs = await asyncio.open_connection(*self._address)
        pumps = [
            asyncio.ensure_future(self._ask(reader, theirs[1])),
            asyncio.ensure_future(self._reply(theirs[0], writer)),
        ]
        await asyncio.wait([*pumps, self.ended], return_when=asyncio.FIRST_COMPLETED)
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
            if self.is_refusing:
                return
            if self.is_silent:
                continue
            if self.replies_left == 0:
                self.replies_left = None
                self.cuts += 1
                return
            if self.replies_left is not None:
                self.replies_left -= 1
            writer.write(data)
            await writer.drain()


def address_of_postgres(dsn: str) -> str | tuple[str, int]:
    server = conninfo_to_dict(dsn)
    host, port = str(server.get("host", "localhost")), int(server.get("port") or 5432)
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def address_of(url: str) -> str | tuple[str, int]:
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else (parts.hostname or "localhost", parts.port or 0)


def credentials_of(url: str) -> str:
    parts = urlsplit(url)
    password = parts.password or next(iter(parse_qs(parts.query).get("password", [])), None)
    return f"{parts.username or ''}:{password}@" if password else ""


@asynccontextmanager
async def proxied(address: str | tuple[str, int]) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """The proxy, and its own `host:port`."""
    proxy = CuttingProxy(address)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield proxy, f"{host}:{port}"
    proxy.ended.set_result(None)  # psycopg leaves a connection whose connect took too long open until it is collected
    await asyncio.gather(*proxy.connections)


def losses(**most: int) -> list[tuple[str, int]]:
    """How many replies come before the one that is lost; as many as the longest call of a backend has."""
    return [(backend, replies) for backend, count in most.items() for replies in range(count)]


@pytest.fixture
async def proxy_and_build(request: pytest.FixtureRequest, backend: str) -> AsyncIterator[tuple[CuttingProxy, Build]]:
    fixture = request.getfixturevalue
    if backend == "postgres":
        dsn, schema = fixture("postgres_dsn"), fixture("postgres_schema")
        async with proxied(address_of_postgres(dsn)) as (proxy, place):
            host, _, port = place.partition(":")
            there = make_conninfo(dsn, host=host, port=port, sslmode="disable", gssencmode="disable")
            yield proxy, partial(PostgresThreadMap, there, schema=schema)
    elif backend == "redis":
        url, prefix = fixture("redis_url"), fixture("key_prefix")
        async with proxied(address_of(url)) as (proxy, place):
            yield proxy, partial(RedisThreadMap, f"redis://{credentials_of(url)}{place}", key_prefix=prefix)
    else:
        url, database = fixture("mongo_url"), fixture("mongo_database")
        async with proxied(address_of(url)) as (proxy, place):
            there = f"mongodb://{credentials_of(url)}{place}/?directConnection=true"
            yield proxy, partial(MongoThreadMap, there, database=database)


@pytest.mark.parametrize(("backend", "replies"), losses(postgres=5, redis=3, mongodb=3))
async def test_each_call_is_one_success(proxy_and_build: tuple[CuttingProxy, Build], replies: int) -> None:
    proxy, build = proxy_and_build
    async with build() as threads:
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
        proxy.replies_left = replies
        assert await threads.hold("u", "bob")
        claims = await threads.claim_many(["u", "v", "w"], "bob")
        assert [claim.created for claim in claims] == [False, True, True]
    assert proxy.cuts >= 1


@pytest.mark.parametrize(("backend", "replies"), losses(postgres=6, redis=4, mongodb=5))
async def test_a_delete_without_tombstone_is_one_success(
    proxy_and_build: tuple[CuttingProxy, Build], replies: int
) -> None:
    proxy, build = proxy_and_build
    async with build(tombstone_seconds=0) as threads:
        await threads.claim("t", "ann")
        proxy.replies_left = replies
        assert await threads.delete("t", user_id="ann")
        assert (await threads.claim("t", "bob")).created
        assert await threads.touch("t", user_id="bob")
        assert await threads.count("bob") == 1
    assert proxy.cuts >= 1


@pytest.mark.faults
@pytest.mark.parametrize("backend", ["postgres", "redis", "mongodb"])
@pytest.mark.parametrize("fault", ["is_silent", "is_refusing"])
async def test_a_server_that_does_not_answer_is_told_in_time(
    proxy_and_build: tuple[CuttingProxy, Build], fault: str
) -> None:
    proxy, build = proxy_and_build

    async def is_told_in_time(seconds: float) -> bool:
        try:
            return await _fails_for_a_while(proxy, build, fault, seconds)
        except StoreUnavailableError:  # the machine stood still, and not the proxy
            return False

    assert await for_one_of((1.0, 6.0), is_told_in_time)


async def _fails_for_a_while(proxy: CuttingProxy, build: Build, fault: str, seconds: float) -> bool:
    async with build(operation_timeout_seconds=seconds) as threads:
        await threads.claim("t", "ann")
        setattr(proxy, fault, True)
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: threads.claim("n", "ann"),
            lambda: threads.hold("t", "ann"),
            lambda: threads.owners_of(["t"]),
            lambda: threads.list("ann"),
            lambda: threads.count("ann"),
            lambda: threads.touch("t", user_id="ann"),
            lambda: threads.delete("t", user_id="bob"),
            lambda: threads.sweep(),
        )
        started = time.monotonic()
        for answer in await asyncio.gather(*(call() for call in calls), return_exceptions=True):
            assert isinstance(answer, StoreUnavailableError)
        took = time.monotonic() - started
        setattr(proxy, fault, False)

        async def is_back() -> bool:
            with contextlib.suppress(StoreUnavailableError):
                return await threads.owner_of("t") == "ann"
            return False

        await eventually(is_back)
        for call in calls:
            await call()
    return took < 4 * seconds
