"""A SIGTERM that comes before `serve` serves ends it, even where nothing but its own handler does."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from cli.serve_process import command
from waiting import eventually_sync

pytestmark = pytest.mark.faults

SLOW = """
import pathlib, threading
pathlib.Path("loading").touch()
threading.Event().wait(600)
"""


def begun(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command("--port", "0", *arguments), cwd=folder, start_new_session=True)


def ends(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()


def test_while_a_graph_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    process = begun(tmp_path, "--graph", "slow:graph")
    eventually_sync((tmp_path / "loading").exists, timeout=120, what="the import of the graph")
    assert ends(process) == 0


def test_while_a_server_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "quick.py").write_text("def graph(): ...")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://u:p@127.0.0.1:{mute.getsockname()[1]}/d"
        config = {
            "database": {"backend": "postgres", "postgres_url": url},
            "replica": {"connect_timeout_seconds": 300},
        }
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        process = begun(tmp_path, "--graph", "quick:graph", "--config", "config.yaml")
        mute.settimeout(120)
        connection, _ = mute.accept()
        with connection:
            assert ends(process) == 0
