"""A TCP proxy that balances without sticky sessions, and cuts."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

Address = tuple[str, int]


def address_of(url: str) -> Address:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


class BalancingProxy:
    """Hands each new connection to the next of `upstreams` that accepts it; the list may change while it runs.

    `cut_after()` is asked for each connection: how many bytes of the answers may pass before both sides are reset;
    None: all of them. `cuts` counts those resets, `served` the connections of each upstream. `one_request_each` tells
    the upstream to close after its answer, so that the next request goes to the next one; but not to a request for a
    stream: Node takes the reset of such a connection for the end of the answer.
    """

    def __init__(
        self,
        upstreams: Iterable[Address],
        cut_after: Callable[[], int | None] = lambda: None,
        *,
        one_request_each: bool = False,
    ) -> None:
        self.upstreams = list(upstreams)
        self.cut_after = cut_after
        self.cuts = 0
        self.served: Counter[Address] = Counter()
        self._turns = itertools.count()
        self._one_request_each = one_request_each
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Reset every connection that is open now."""
        for writer in list(self._open):
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BalancingProxy]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            self.cut()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connected()
        if upstream is None:
            writer.transport.abort()
            return
        pair = {writer, upstream[1]}
        self._open |= pair
        pumps = [
            asyncio.ensure_future(self._requests(reader, upstream[1])),
            asyncio.ensure_future(self._answers(upstream[0], writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for side in pair:
                side.close()
            self._open -= pair

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self.upstreams)):
            upstream = self.upstreams[next(self._turns) % len(self.upstreams)]
            with suppress(OSError):
                connection = await asyncio.open_connection(*upstream)
                self.served[upstream] += 1
                return connection
        return None

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(65536)
        if self._one_request_each and b"/stream" not in head.partition(b"\r\n")[0]:
            head = head.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
        writer.write(head)
        await writer.drain()
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self.cut_after()
        while data := await reader.read(65536):
            writer.write(data if left is None else data[:left])
            await writer.drain()
            if left is not None and (left := left - len(data)) <= 0:
                self.cuts += 1
                for side in list(self._open & {writer}):
                    side.transport.abort()
                return
        writer.close()
