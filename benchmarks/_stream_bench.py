"""What the stream's measurements share: the server and its counts, the processes, and a longer wire."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from _stream_worker import Load
from redis import Redis

from deerflow_replica._drivers.embedded import EmbeddedValkey

WORKER = Path(__file__).with_name("_stream_worker.py")
EVENT_BYTES = 640


class Server:
    """A private one, or the one of `url`."""

    def __init__(self, url: str | None) -> None:
        self._stack = ExitStack()
        self._url = url
        self._redis: Redis | None = None

    def __enter__(self) -> Self:
        settings = {"maxclients": 20_000}
        self.url = self._url or self._stack.enter_context(EmbeddedValkey(port=0, settings=settings)).url
        self.redis = self._stack.enter_context(Redis.from_url(self.url, decode_responses=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def name(self) -> str:
        info = self.info("server")
        return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"

    def info(self, section: str) -> dict[str, Any]:
        found: Any = self.redis.info(section)
        return dict(found)

    def cpu_seconds(self) -> float:
        info = self.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def connections(self) -> int:
        return int(self.info("clients")["connected_clients"])

    def empty(self, prefix: str) -> None:
        for keys in self.redis.scan_iter(f"{prefix}*", count=1000):
            self.redis.unlink(keys)

    @contextmanager
    def counted(self) -> Iterator[list[int]]:
        """The number of commands that clients sent meanwhile, without what scripts call inside."""
        count = [0]
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname, address.port or 6379)) as watch:
            login = f"AUTH {address.password}\r\n" if address.password else ""
            watch.sendall(f"{login}MONITOR\r\n".encode())
            lines = watch.makefile("rb")
            for _ in range(2 if login else 1):
                lines.readline()
            mark = uuid.uuid4().hex
            counter = threading.Thread(target=_count, args=(lines, mark.encode(), count))
            counter.start()
            try:
                yield count
            finally:
                self.redis.echo(mark)
                counter.join()

    def benchmark(self, events: int) -> float | None:
        """Events a second of `redis-benchmark` with 50 clients and no pipeline; None where it is not installed."""
        program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
        if program is None:
            return None
        address = urlsplit(self.url)
        password = ["-a", address.password] if address.password else []
        command = [program, "-h", str(address.hostname), "-p", str(address.port or 6379), *password]
        command += ["-c", "50", "-n", str(events), "-q", "XADD", "benchmark", "*", "data", "x" * EVENT_BYTES]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        self.redis.unlink("benchmark")
        return float(re.findall(r"([\d.]+) requests per second", shown)[-1])


def _count(lines: Any, mark: bytes, count: list[int]) -> None:
    for line in lines:
        if mark in line:
            return
        count[0] += b" lua] " not in line


@dataclass(frozen=True)
class Measured:
    """Both sides of one measurement; CPU in seconds. `server_cpu` and `commands`: of the timed part."""

    publisher: dict[str, float]
    reader: dict[str, float]
    server_cpu: float
    connections: int
    commands: int

    @property
    def published_seconds(self) -> float:
        return self.publisher["ended"] - self.publisher["began"]

    @property
    def delivered_per_second(self) -> float:
        return self.reader["delivered"] / (self.reader["ended"] - self.publisher["began"])


class Worker:
    def __init__(self, load: Load) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(asdict(load))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the measurement failed")
        return json.loads(line)

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


def measure(server: Server, load: Load, *, far: str | None = None, is_counted: bool = False) -> Measured:
    """One publisher and one reading process; `far` is where the publisher finds the server."""
    load = replace(load, url=server.url, prefix=f"bench{uuid.uuid4().hex[:8]}")
    with ExitStack() as stack:
        publisher = stack.enter_context(Worker(replace(load, role="publish", url=far or server.url)))
        publisher.heard()
        before = server.connections()
        reader = stack.enter_context(Worker(replace(load, role="read")))
        reader.heard()
        connections = server.connections() - before
        count = stack.enter_context(server.counted()) if is_counted else [0]
        cpu = server.cpu_seconds()
        reader.go()
        publisher.go()
        published, read = publisher.heard(), reader.heard()
        cpu = server.cpu_seconds() - cpu
        commands = count[0]
        publisher.go()
    server.empty(load.prefix)
    if read["delivered"] != load.runs * load.readers * load.events:
        raise RuntimeError(f"{load.bridge} lost something: {read['delivered']} delivered of {load}")
    return Measured(published, read, cpu, connections, commands)


def measure_alone(load: Load) -> dict[str, float]:
    """Publisher and readers in one process."""
    with Worker(replace(load, role="both")) as worker:
        worker.heard()
        worker.go()
        measured: dict[str, float] = worker.heard()
        return measured


@contextmanager
def longer_wire(url: str, seconds: float) -> Iterator[str]:
    """The server, `seconds` farther away: one process of threads, which hold every piece back that long."""
    address = urlsplit(url)
    command = [sys.executable, __file__, str(address.hostname), str(address.port or 6379), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            port = int(proxy.stdout.readline())
            login = f":{address.password}@" if address.password else ""
            yield f"redis://{login}127.0.0.1:{port}/0"
        finally:
            proxy.kill()


def _stand_between(host: str, port: int, seconds: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            near, _ = listener.accept()
            far = socket.create_connection((host, port))
            for one, other, delay in ((near, far, seconds), (far, near, 0.0)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _start_copying(one, other, delay)


def _start_copying(source: socket.socket, target: socket.socket, delay: float) -> None:
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def take() -> None:
        while piece := source.recv(65536):
            pieces.put((time.monotonic() + delay, piece))

    def give() -> None:
        while True:
            due, piece = pieces.get()
            time.sleep(max(0.0, due - time.monotonic()))
            target.sendall(piece)

    for work in (take, give):
        threading.Thread(target=work, daemon=True).start()


if __name__ == "__main__":
    _stand_between(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
