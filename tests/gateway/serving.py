"""Serve an ASGI application on loopback, and talk to it as its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from waiting import eventually

IN_MEMORY: dict[str, Any] = {"database": {"backend": "memory"}, "stream_bridge": {"queue_maxsize": 10_000}}


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the test runner's


@asynccontextmanager
async def served(app: Any, *, lifespan: str = "off") -> AsyncIterator[str]:
    """The base URL of `app` under uvicorn, on this loop. Leaving cuts what still streams."""
    # asyncio turns Nagle's algorithm off only on sockets that say that they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, lifespan="on" if lifespan == "on" else "off", ws="none", log_level="critical", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await eventually(lambda: server.started or serving.done(), what="the server's start")
        assert not serving.done(), "the server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


def in_process(app: Any, user: str | None = None) -> httpx.AsyncClient:
    """A client without a network; `user` goes into the header that `by_header` reads."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://replica", headers={} if user is None else {"x-user": user}
    )


@asynccontextmanager
async def official(app: Any, user: str | None = None) -> AsyncIterator[LangGraphClient]:
    """The official client without a network."""
    async with in_process(app, user) as client:
        yield LangGraphClient(client)


class Clients:
    """Official clients, closed together."""

    def __init__(self) -> None:
        self._made: list[LangGraphClient] = []

    def __call__(self, url: str, user: str | None = None) -> LangGraphClient:
        client = get_client(url=url, api_key=None, headers=None if user is None else {"x-user": user})
        self._made.append(client)
        return client

    async def aclose(self) -> None:
        for client in self._made:
            await client.aclose()


def by_header(request: Any) -> str | None:
    """An `authenticate` hook that believes the header `x-user`."""
    user: str | None = request.headers.get("x-user")
    return user
