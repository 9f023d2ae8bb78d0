"""What the store's measurements share: a server, the peer and ours on it, and turns taken by both."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Self

import psycopg
from _wire import Address, longer_wire
from langgraph.store.base import BaseStore
from langgraph.store.postgres import PostgresStore as LangGraphStore
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deerflow_replica._drivers.embedded import EmbeddedPostgres
from deerflow_replica.store import PostgresStore

CONNECTIONS = 4
WIRE_SECONDS = 0.001
WARM_UP = 10

Call = Callable[[], Awaitable[object]]


class Server:
    """A private PostgreSQL on loopback, or the one of `dsn`."""

    def __init__(self, dsn: str | None) -> None:
        self._stack = ExitStack()
        self._dsn = dsn

    def __enter__(self) -> Self:
        self.dsn = self._dsn or self._stack.enter_context(EmbeddedPostgres(port=0)).dsn
        self._connection = self._stack.enter_context(psycopg.connect(self.dsn, autocommit=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def name(self) -> str:
        return f"PostgreSQL {self._connection.info.server_version // 10_000}"

    @property
    def address(self) -> Address:
        parts = conninfo_to_dict(self.dsn)
        return str(parts.get("host") or "127.0.0.1"), int(parts.get("port") or 5432)

    @contextmanager
    def database(self, *, is_plain_user: bool = False) -> Iterator[str]:
        """The DSN of an empty database, for a user who is no superuser if so asked."""
        name, role = (f"bench_{uuid.uuid4().hex[:12]}" for _ in range(2))
        self._do(f"CREATE DATABASE {name}")
        dsn = make_conninfo(self.dsn, dbname=name)
        if is_plain_user:
            self._do(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
            self._do(f"ALTER DATABASE {name} OWNER TO {role}")
            dsn = make_conninfo(dsn, user=role, password=role)
        try:
            yield dsn
        finally:
            self._do(f"DROP DATABASE {name} WITH (FORCE)")
            if is_plain_user:
                self._do(f"DROP ROLE {role}")

    def _do(self, statement: str) -> None:
        self._connection.execute(statement.encode())


@dataclass(frozen=True)
class Bench:
    server: Server
    is_smoke: bool

    def size(self, full: int, small: int) -> int:
        return small if self.is_smoke else full


def farther(server: Server, dsn: str, stack: ExitStack) -> str:
    host, port = stack.enter_context(longer_wire(server.address, WIRE_SECONDS))
    return make_conninfo(dsn, host=host, port=port)


@asynccontextmanager
async def both(dsn: str) -> AsyncIterator[tuple[AsyncPostgresStore, PostgresStore]]:
    """The peer and ours in one database, set up."""
    async with peer(dsn) as theirs, ours(dsn) as store:
        await theirs.setup()
        await store.asetup()
        yield theirs, store


def peer(dsn: str) -> Any:
    pool: Any = {"min_size": CONNECTIONS, "max_size": CONNECTIONS}
    return AsyncPostgresStore.from_conn_string(dsn, pool_config=pool)


def sync_peer(dsn: str) -> Any:
    pool: Any = {"min_size": CONNECTIONS, "max_size": CONNECTIONS}
    return LangGraphStore.from_conn_string(dsn, pool_config=pool)


def ours(dsn: str) -> PostgresStore:
    return PostgresStore(dsn, pool_min_size=CONNECTIONS, pool_max_size=CONNECTIONS)


async def put_all(store: BaseStore, ops: list[Any], at_once: int = 1000) -> None:
    for start in range(0, len(ops), at_once):
        await store.abatch(ops[start : start + at_once])


async def taken_in_turns(rivals: list[Call], rounds: int) -> list[list[float]]:
    """Seconds of each. They take turns, so that what disturbs the machine disturbs all of them."""
    for call in rivals * WARM_UP:
        await call()
    times = [list[float]() for _ in rivals]
    for _ in range(rounds):
        for call, took in zip(rivals, times, strict=True):
            started = perf_counter()
            await call()
            took.append(perf_counter() - started)
    return times


async def medians(rivals: list[Call], rounds: int) -> list[float]:
    return [median(took) for took in await taken_in_turns(rivals, rounds)]


@asynccontextmanager
async def repeated(call: Call, at_once: int) -> AsyncIterator[None]:
    """Meanwhile, `at_once` of these calls are always under way."""

    async def forever() -> None:
        while True:
            await call()

    tasks = [asyncio.create_task(forever()) for _ in range(at_once)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def several(new: Callable[[], Any], count: int) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(new()) for _ in range(count)]
