"""One replica under uvicorn, with its own reading of SIGTERM and an optional lifeline to its parent."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .._extras import extra
from ..config import AppConfig
from ..gateway import StreamCutError, create_app, deep_stream
from ..replica import open_replica

with extra("gateway"):
    import uvicorn

LAST_REQUESTS_SECONDS = 5  # after the drain: a client that never ends its request keeps nobody from leaving
KEEP_ALIVE_SECONDS = 75  # above the idle time of the usual balancers, so that they, not we, close idle connections
LONGEST_TIMEOUT_MILLISECONDS = 2**31 - 1  # of a socket


class ReplicaServer(uvicorn.Server):
    """A uvicorn server whose signals are ours: the app learns of SIGTERM before uvicorn waits for open responses."""

    def __init__(self, config: uvicorn.Config, gateway: Any, lifeline: int | None) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._lifeline = lifeline
        self._leaving: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        if self._lifeline is not None:
            loop.add_reader(self._lifeline, self._parent_is_gone)
        try:
            yield
        finally:
            self._forget_lifeline()

    def _leave(self) -> None:
        """Drain, then exit; a second signal skips the wait."""
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._drain())
        else:
            self._gateway.hurry()

    async def _drain(self) -> None:
        try:
            await self._gateway.drain()
        finally:
            self._gateway.close_streams()
            self.should_exit = True

    def _parent_is_gone(self) -> None:
        self._forget_lifeline()
        if self._leaving is None:
            self._leave()

    def _forget_lifeline(self) -> None:
        if self._lifeline is not None:
            asyncio.get_running_loop().remove_reader(self._lifeline)
            self._lifeline = None


async def serve_replica(
    config: AppConfig,
    graphs: Mapping[str, Any],
    listener: socket.socket,
    *,
    authenticate: Any = None,
    log_level: str = "info",
    lifeline: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until the pipe `lifeline` is closed by whoever holds its other end.

    Raises what `open_replica` raises, before anything is served, and `CancelledError` at a SIGTERM that comes so early.
    """
    if (opening := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, opening.cancel)
    cut_deaf_clients(listener, config.gateway.send_timeout_seconds)
    async with open_replica(deep_stream(config)) as replica:
        app = create_app(replica, graphs, authenticate=authenticate)
        settings = uvicorn.Config(
            app,
            log_level=log_level,
            lifespan="off",
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=LAST_REQUESTS_SECONDS,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
        await ReplicaServer(settings, app.state.gateway, lifeline).serve(sockets=[listener])


def cut_deaf_clients(listener: socket.socket, seconds: float) -> None:
    """A connection whose client accepts nothing ends after that time, where the system can do it: a closed one still
    waits for what it holds to be sent, for ever if nobody takes it.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = int(min(seconds * 1000, LONGEST_TIMEOUT_MILLISECONDS))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _is_no_cut(record: logging.LogRecord) -> bool:
    """A stream that was cut for its client to go on elsewhere is no failure, and worth no traceback."""
    return record.exc_info is None or not isinstance(record.exc_info[1], StreamCutError)
