"""A TCP proxy that balances without sticky sessions, and cuts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

Address = tuple[str, int]


class BalancingProxy:
    """Hands each new connection to the next upstream that accepts it.

    `cut_after()` is asked for each connection: how many bytes of the answers may pass before both sides are reset;
    None: all of them. `cuts` counts those resets, `served` the connections of each upstream.
    """

    def __init__(self, upstreams: Sequence[Address], cut_after: Callable[[], int | None] = lambda: None) -> None:
        self.cut_after = cut_after
        self.cuts = 0
        self.served: dict[Address, int] = dict.fromkeys(upstreams, 0)
        self._next_upstream = itertools.cycle(upstreams)
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
            asyncio.ensure_future(_pump(reader, upstream[1])),
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
        for upstream in itertools.islice(self._next_upstream, len(self.served)):
            with suppress(OSError):
                connection = await asyncio.open_connection(*upstream)
                self.served[upstream] += 1
                return connection
        return None

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


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
