"""Servers of other kinds, on loopback, private to a test: replicated and watched by a Sentinel, or behind TLS."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from deerflow_replica._drivers.embedded import EmbeddedValkey
from deerflow_replica._drivers.private_server import Guard
from ports import free_port


class Node(EmbeddedValkey):
    """A server on a port without a password, as a Sentinel wants it."""

    def __init__(self, *, master: Node | None = None) -> None:
        self.number = free_port()
        settings: dict[str, str | int] = {"port": self.number, "repl-diskless-sync-delay": 0}
        if master is not None:
            settings["replicaof"] = f"127.0.0.1 {master.number}"
        super().__init__(settings=settings)


class SentinelNode(EmbeddedValkey):
    """Watches one master, and needs nobody's consent to replace it; a busy machine is no reason to."""

    def __init__(self, master: Node) -> None:
        self.number = free_port()
        self._monitor = (
            f"port {self.number}",
            f"sentinel monitor main 127.0.0.1 {master.number} 1",
            "sentinel down-after-milliseconds main 60000",
            "sentinel failover-timeout main 3000",
        )
        super().__init__()

    def _command(self) -> list[str]:
        program, file = super()._command()
        kept = [line for line in Path(file).read_text().splitlines() if line.startswith(("bind", "unix", "dir"))]
        Path(file).write_text("\n".join((*kept, *self._monitor)) + "\n")
        return [program, file, "--sentinel"]


class TlsRedis(EmbeddedValkey):
    """The installed redis-server, which asks every client for a certificate."""

    def __init__(self, authority: Path, certificate: Path) -> None:
        self.number = free_port()
        super().__init__(
            settings={
                "tls-port": self.number,
                "tls-ca-cert-file": str(authority),
                "tls-cert-file": str(certificate),
                "tls-key-file": str(certificate),
            }
        )

    def _prepare(self, guard: Guard) -> None:
        super()._prepare(guard)
        self._program = Path(shutil.which("redis-server") or "")


@asynccontextmanager
async def tls_front(target: str, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port that speaks TLS for a server that does not, as stunnel or a load balancer would."""
    place = urlsplit(target)
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if place.scheme == "unix":
            far_reader, far_writer = await asyncio.open_unix_connection(place.path)
        else:
            far_reader, far_writer = await asyncio.open_connection(place.hostname, place.port)
        for work in (copy(reader, far_writer), copy(far_reader, writer)):
            task = asyncio.ensure_future(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        while tasks:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
