"""Several replicas behind one port: the parent binds it once, its children inherit the socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress

import typer

from ..errors import ConfigError

SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0


def pause_after(served_seconds: float, last_pause_seconds: float) -> float:
    """Seconds until a child that served so long is replaced: twice as many as the last time, unless it was steady."""
    if served_seconds > STEADY_SECONDS:
        return SHORTEST_PAUSE_SECONDS
    return min(LONGEST_PAUSE_SECONDS, max(SHORTEST_PAUSE_SECONDS, 2 * last_pause_seconds))


def supervise(arguments: list[str], listener: socket.socket, replicas: int) -> None:
    """Keep `replicas` children serving until SIGTERM or SIGINT, which is passed on; then wait for them.

    Raises `ConfigError` once a child finds that it can never be started.
    """
    asyncio.run(_Supervisor(arguments, listener).run(replicas))


class _Supervisor:
    def __init__(self, arguments: list[str], listener: socket.socket) -> None:
        self._arguments = arguments
        self._listener = listener
        self._leaving = asyncio.Event()
        self._children: set[asyncio.subprocess.Process] = set()
        self._lifeline, self._held = os.pipe()

    async def run(self, replicas: int) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        keeping = [asyncio.create_task(self._keep_alive()) for _ in range(replicas)]
        try:
            await asyncio.gather(*keeping)
        finally:
            self._leave()
            await asyncio.gather(*keeping, return_exceptions=True)

    def _leave(self) -> None:
        """Each signal goes on to the children: the second one skips their wait."""
        self._leaving.set()
        for child in self._children:
            with suppress(ProcessLookupError):
                child.terminate()

    async def _keep_alive(self) -> None:
        clock = asyncio.get_running_loop().time
        pause = 0.0
        while not self._leaving.is_set():
            started = clock()
            await self._serve_once()
            pause = pause_after(clock() - started, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._leaving.wait()

    async def _serve_once(self) -> None:
        fds = (self._listener.fileno(), self._lifeline)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deerflow_replica", "serve"),
            *self._arguments,
            *("--fd", str(fds[0]), "--lifeline", str(fds[1])),
            pass_fds=fds,
            start_new_session=True,  # Ctrl-C is the parent's to pass on: a second signal would skip the drain
        )
        self._children.add(child)
        if self._leaving.is_set():
            child.terminate()
        try:
            code = await child.wait()
        finally:
            self._children.discard(child)
        if code == 2:
            raise ConfigError("a replica could not be started; see above")
        if not self._leaving.is_set():
            typer.echo(f"replica with pid {child.pid} ended ({code}); another one starts", err=True)
