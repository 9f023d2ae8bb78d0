"""`deerflow-replica serve` as a process, and a client that streams from it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import yaml

from waiting import eventually_sync

HERE = Path(__file__).parent
START_SECONDS = 120.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "deerflow_replica", "serve", *arguments]


def refused(*arguments: str, cwd: Path = HERE) -> tuple[int, str]:
    done = subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@contextmanager
def serving(port: int, config: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ["--graph", "echo=served:make_echo", "--graph", "nap=served:make_nap"]
    arguments += ["--config", str(config), "--port", str(port), "--log-level", "warning", *more]
    process = subprocess.Popen(command(*arguments), cwd=HERE, start_new_session=True)
    try:
        eventually_sync(lambda: process.poll() is not None or is_ready(port), timeout=START_SECONDS, what="ready")
        assert process.poll() is None
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).is_success
    except httpx.TransportError:
        return False


def replica_of(port: int) -> tuple[str, int]:
    info = httpx.get(f"http://127.0.0.1:{port}/info", timeout=60).json()
    return info["replica_id"], info["pid"]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Sleeper:
    """A client that streams one run which sleeps."""

    def __init__(self, port: int, seconds: float) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self._stream = self._client.stream(
            "POST",
            f"/threads/{uuid4()}/runs/stream",
            json={"assistant_id": "nap", "input": {"seconds": seconds}, "if_not_exists": "create"},
        )
        self._lines = self._stream.__enter__().iter_lines()
        assert next(self._lines) == "event: metadata"

    def events(self) -> list[str]:
        """The names of the events that follow, up to a clean end."""
        with closing(self._client):
            found = [line.removeprefix("event: ") for line in self._lines if line.startswith("event: ")]
            self._stream.__exit__(None, None, None)
        return found


def timeouts(config: Path, **seconds: float) -> None:
    sections = yaml.safe_load(config.read_text())
    sections.setdefault("gateway", {}).update(seconds)
    config.write_text(yaml.safe_dump(sections))
