"""Connections at hand for a test, and what is asked on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deerflow_replica._drivers.direct_postgres import Plan
from deerflow_replica._drivers.kept_postgres import Answer, KeptConnections
from deerflow_replica._drivers.pipelined_postgres import Statement
from deerflow_replica._drivers.postgres import connected_pool
from proxy import CuttingProxy, cutting_proxy

if TYPE_CHECKING:
    from deerflow_replica._drivers.postgres import Connection


class Kept(KeptConnections):
    async def ask(self, *statements: Statement) -> Answer:
        return await (await self.begun(*statements))

    async def begun(self, *statements: Statement) -> asyncio.Future[Answer]:
        """Where nothing is at hand, something is now: an idle connection does not stay for long."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self.are_at_hand:
            await self.run(nothing)
        assert self.begin(statements, answer.set_result)
        return answer

    async def value(self, text: str, /, **parameters: Any) -> Any:
        answer = await self.ask(planned(text, **parameters))
        assert isinstance(answer, list)
        return answer[0][0][0]

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Another timeout for what begins now, but not for new connections."""
        timeout_seconds, self._timeout_seconds = self._timeout_seconds, seconds
        yield
        self._timeout_seconds = timeout_seconds


async def nothing(connection: Connection) -> None:
    """A connection that was used is at hand."""


def planned(text: str, /, **parameters: Any) -> Statement:
    """A statement of its own, however often its text comes."""
    return Statement(text.encode(), parameters, Plan(text.encode()))


@asynccontextmanager
async def kept_connections(
    dsn: str, *, max_size: int = 1, timeout_seconds: float = 60.0, prepare_threshold: int | None = None
) -> AsyncIterator[Kept]:
    pool = await connected_pool(
        dsn, max_size=max_size, timeout_seconds=timeout_seconds, prepare_threshold=prepare_threshold
    )
    kept = Kept(pool, timeout_seconds=timeout_seconds)
    try:
        yield kept
    finally:
        await kept.close()
        await pool.close()


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """A proxy before the server, and the DSN that leads through it, without encryption."""
    server = conninfo_to_dict(dsn)
    host, port = str(server.get("host") or "127.0.0.1"), server.get("port") or 5432
    target = f"unix://{host}/.s.PGSQL.{port}" if host.startswith("/") else f"redis://{host}:{port}"
    async with cutting_proxy(target) as proxy:
        through = urlsplit(proxy.url).port
        yield proxy, make_conninfo(dsn, host="127.0.0.1", port=through, sslmode="disable", gssencmode="disable")
