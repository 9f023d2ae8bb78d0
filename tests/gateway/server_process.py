"""Replicas as processes of their own: `deerflow-replica serve`, as whoever deploys it runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.balancing import Address
from waiting import eventually, eventually_sync

TESTS = Path(__file__).parent.parent
START_SECONDS = 120.0
GRAPHS = ("agent=gateway.graphs:counting_graph", "asking=gateway.graphs:asking_graph")
MORE_GRAPHS = ("stepping=gateway.slow_graphs:stepping_graph", "chat=gateway.slow_graphs:chat_graph")


class ServedReplica:
    """One `serve` process on a free port. It ends when its starter does, even if that is killed."""

    def __init__(self, config: Path, log: Path) -> None:
        self._log = log
        graphs = [part for graph in (*GRAPHS, *MORE_GRAPHS) for part in ("--graph", graph)]
        lifeline, self._held = os.pipe()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "deerflow_replica", "serve", *graphs),
                    *("--config", str(config), "--auth", "gateway.serving:by_header", "--port", "0"),
                    *("--log-level", "warning", "--lifeline", str(lifeline)),
                ],
                cwd=TESTS,
                pass_fds=(lifeline,),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        os.close(lifeline)

    @property
    def address(self) -> Address:
        port = self._port()
        assert port, self.log
        return "127.0.0.1", port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return bool(self._port()) and _answers_ok(f"{self.url}/ready")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self, *, within: float) -> int:
        await eventually(lambda: self.process.poll() is not None, timeout=within, what="the end of the process")
        return int(self.process.returncode)

    def end(self) -> None:
        """Whatever state it is in."""
        self.process.kill()
        self.process.wait()
        os.close(self._held)

    def _port(self) -> int:
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log)
        return int(found[1]) if found else 0


def _answers_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30).is_success
    except httpx.TransportError:
        return False


class Deployment:
    """Replicas that share one configuration."""

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._folder = folder
        self._config = folder / "config.yaml"
        self._config.write_text(json.dumps(config))
        self.replicas: list[ServedReplica] = []

    def begin(self) -> ServedReplica:
        """Another replica, which is not ready yet."""
        self.replicas.append(ServedReplica(self._config, self._folder / f"replica-{len(self.replicas)}.log"))
        return self.replicas[-1]

    async def started(self) -> ServedReplica:
        """Another replica, once it is ready."""
        replica = self.begin()
        await eventually(replica.is_ready, timeout=START_SECONDS, what="a ready replica")
        return replica

    @property
    def addresses(self) -> list[Address]:
        return [replica.address for replica in self.replicas]


@contextmanager
def deployed(config: Mapping[str, Any], folder: Path, *, replicas: int = 2) -> Iterator[Deployment]:
    """So many replicas, all of them ready. None of them, nor of those started later, is left at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    deployment = Deployment(config, folder)
    try:
        for _ in range(replicas):
            deployment.begin()
        for replica in deployment.replicas:
            eventually_sync(replica.is_ready, timeout=START_SECONDS, what="a ready replica")
        yield deployment
    finally:
        for replica in deployment.replicas:
            replica.end()


def shared_parts(postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str) -> dict[str, Any]:
    """The configuration of every replica of one deployment."""
    return {
        "database": {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema},
        "stream_bridge": {"type": "redis", "redis_url": redis_url, "key_prefix": key_prefix, "queue_maxsize": 10_000},
        "gateway": {"lease_seconds": 60},  # a machine that is busy is not gone
        "replica": {"connect_timeout_seconds": 60},
    }
