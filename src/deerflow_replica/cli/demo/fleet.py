"""Two real `serve` processes on embedded servers, behind the proxy."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..._drivers.embedded import EmbeddedPostgres, EmbeddedValkey
from ..._extras import extra
from .proxy import RoundRobinProxy

with extra("embedded"):
    import httpx

START_TIMEOUT_SECONDS = 120.0
REPLICA_HEADER = "x-replica-id"


@dataclass(frozen=True, slots=True)
class Fleet:
    """`pids` by replica id, of the processes that serve behind `proxy`."""

    proxy: RoundRobinProxy
    pids: dict[str, int]

    def kill(self, replica_id: str) -> None:
        """SIGKILL: the replica gets no chance to say goodbye."""
        os.kill(self.pids[replica_id], signal.SIGKILL)


@asynccontextmanager
async def running_fleet(replicas: int = 2) -> AsyncIterator[Fleet]:
    """Servers, replicas and proxy; all of them and their files are gone afterwards."""
    async with AsyncExitStack() as stack:
        postgres, valkey = await asyncio.gather(
            asyncio.to_thread(stack.enter_context, EmbeddedPostgres()),
            asyncio.to_thread(stack.enter_context, EmbeddedValkey()),
        )
        folder = valkey.directory / "demo"  # gone with the server, also when this process is killed
        folder.mkdir(mode=0o700)
        config = _write_config(folder, postgres_url=postgres.dsn, redis_url=valkey.url)
        ports = [stack.enter_context(_serving(config, folder / f"replica-{n}.log")) for n in range(replicas)]
        pids = dict(await asyncio.gather(*(_ready(port, folder / f"replica-{n}.log") for n, port in enumerate(ports))))
        proxy = await stack.enter_async_context(RoundRobinProxy(ports).running())
        yield Fleet(proxy, pids)


def _write_config(folder: Path, *, postgres_url: str, redis_url: str) -> Path:
    path = folder / "config.yaml"
    sections = {
        "database": {"backend": "postgres", "postgres_url": postgres_url},
        "stream_bridge": {"type": "redis", "redis_url": redis_url},
        "memory": {"storage": "store"},
    }
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    path.chmod(0o600)
    return path


@contextmanager
def _serving(config: Path, log: Path) -> Iterator[int]:
    """One `serve` process on a free port of its own; it ends when we do, even if we are killed."""
    script = "deerflow_replica.cli.demo.script"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        lifeline, held = os.pipe()
        arguments = ["--graph", f"agent={script}:make_agent", "--graph", f"report={script}:make_report"]
        arguments += ["--auth", f"{script}:authenticate", "--config", str(config), "--log-level", "warning"]
        arguments += ["--fd", str(listener.fileno()), "--lifeline", str(lifeline)]
        process = subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, "-m", "deerflow_replica", "serve", *arguments],
            pass_fds=(listener.fileno(), lifeline),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        os.close(lifeline)
        try:
            port: int = listener.getsockname()[1]
            listener.close()
            yield port
        finally:
            os.close(held)
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _ready(port: int, log: Path) -> tuple[str, int]:
    """The replica id and pid, as soon as the replica says that it is ready."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=2.0) as client:
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                while True:
                    with suppress(httpx.TransportError):
                        if (await client.get("/ready")).is_success:
                            break
                    await asyncio.sleep(0.1)
        except TimeoutError:
            tail = (await asyncio.to_thread(log.read_text, errors="replace"))[-2000:]
            raise RuntimeError(f"a replica was not ready within {START_TIMEOUT_SECONDS:.0f} s:\n{tail}") from None
        info = (await client.get("/info")).json()
        return info["replica_id"], info["pid"]
