"""The servers of the gateway's measurements: ours, each replica a process, and the reference server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import httpx
import psycopg

from deerflow_replica._drivers.embedded import EmbeddedPostgres, EmbeddedValkey

HERE = Path(__file__).parent
START_SECONDS = 60.0
AT_ONCE = 20  # runs that the reference server executes at once; its own default is one
REFERENCE = """
from langgraph_api.cli import run_server
run_server("127.0.0.1", {port}, reload=False, graphs={{"agent": {graph!r}}}, n_jobs_per_worker={at_once},
           open_browser=False, allow_blocking=True, runtime_edition="inmem", server_level="ERROR")
"""


class Serving:
    """One server process."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024

    def connections_to(self, port: int) -> int:
        """How many of its sockets are connected to that port of this machine."""
        held = set()
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(OSError):
                held.add(str(link.readlink()))
        count = 0
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                to_port = int(fields[2].rpartition(":")[2], 16)
                count += to_port == port and fields[3] == "01" and f"socket:[{fields[9]}]" in held
        return count


class Databases:
    """A private PostgreSQL and a private Valkey, and a fresh place in them for each deployment."""

    def __init__(self, stack: ExitStack) -> None:
        self._postgres = stack.enter_context(EmbeddedPostgres(settings={"max_connections": 200}))
        self._valkey = stack.enter_context(EmbeddedValkey(port=0))

    @property
    def redis_port(self) -> int:
        return httpx.URL(self._valkey.url).port or 6379

    def config(self, **gateway: Any) -> dict[str, Any]:
        name = f"bench_{uuid4().hex[:8]}"
        with psycopg.connect(self._postgres.dsn, autocommit=True) as connection:
            connection.execute(f'CREATE SCHEMA "{name}"'.encode())
        place = {"postgres_schema": name}
        return {
            "database": {"backend": "postgres", "postgres_url": self._postgres.dsn, **place},
            "user_thread_mapping": place,
            "model_feedback": place,
            "stream_bridge": {"type": "redis", "redis_url": self._valkey.url, "key_prefix": name},
            "gateway": gateway,
        }


@contextmanager
def replicas(config: Mapping[str, Any], count: int) -> Iterator[list[Serving]]:
    """So many of ours on one configuration."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory) / "config.json"  # YAML, too
        path.write_text(json.dumps(config))
        started = [stack.enter_context(_ours(path)) for _ in range(count)]
        for serving, log in started:
            _wait_until(lambda log=log: b"listening on http" in _text(log), serving.process, log)
            serving.url = re.findall(rb"listening on (http://\S+)", _text(log))[0].decode()
            _wait_until(lambda url=serving.url: _is_up(f"{url}/ready"), serving.process, log)
        yield [serving for serving, _ in started]


@contextmanager
def _ours(config: Path) -> Iterator[tuple[Serving, IO[bytes]]]:
    """A process that starts, and what it writes."""
    command = [sys.executable, "-m", "deerflow_replica", "serve", "--graph", "_gateway_graphs:graph"]
    command += ["--config", str(config), "--port", "0", "--log-level", "warning"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log) as process:
        serving = Serving(process, "")
        try:
            yield serving, log
        finally:
            serving.end()


@contextmanager
def reference(python: str) -> Iterator[Serving]:
    """LangGraph's own server in memory, by the Python of an environment that has it."""
    port = 20_000 + os.getpid() % 10_000
    script = REFERENCE.format(port=port, graph=str(HERE / "_gateway_graphs.py:graph"), at_once=AT_ONCE)
    environment = {**os.environ, "LANGSMITH_TRACING": "false", "LOG_LEVEL": "ERROR"}
    with (
        tempfile.TemporaryDirectory() as directory,
        tempfile.TemporaryFile() as log,
        subprocess.Popen([python, "-c", script], cwd=directory, stdout=log, stderr=log, env=environment) as process,
    ):
        serving = Serving(process, f"http://127.0.0.1:{port}")
        try:
            _wait_until(lambda: _is_up(f"{serving.url}/ok"), process, log)
            yield serving
        finally:
            serving.end()


def reference_version(python: str) -> str | None:
    """None: it is not installed there."""
    script = "from importlib.metadata import version as v; print(v('langgraph-api'), v('langgraph-runtime-inmem'))"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.split()[0] if done.returncode == 0 else None


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _wait_until(check: Any, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not check():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start:\n{_text(log).decode(errors='replace')[-3000:]}")
        time.sleep(0.05)


def _text(log: IO[bytes]) -> bytes:
    return os.pread(log.fileno(), 1 << 20, 0)
