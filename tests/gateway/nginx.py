"""The nginx of the example deployment, run here: its own configuration, but for addresses and temporary files."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway.balancing import Address
from ports import free_port
from waiting import eventually_sync

CONFIG = Path(__file__).parents[2] / "examples" / "deploy" / "nginx.conf"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def adapted(upstreams: Sequence[Address], port: int, folder: Path) -> str:
    """The example's text for these replicas, with everything that nginx writes in `folder`."""
    text = CONFIG.read_text()
    servers = "".join(f"server {host}:{number};\n" for host, number in upstreams)
    text, replaced = re.subn(r"(?:server gateway-\w+:2024;\s+)+", servers, text)
    assert replaced == 1
    assert "listen 8080;" in text
    places = "".join(f"{name}_temp_path {folder}/{name};\n" for name in _TEMPORARY)
    text = text.replace("http {", f"http {{\naccess_log off;\n{places}", 1)
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    return f"daemon off; pid {folder}/pid; error_log {folder}/log warn;\n{text}"


@contextmanager
def running(upstreams: Sequence[Address], folder: Path) -> Iterator[str]:
    """Its URL."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(adapted(upstreams, port, folder))
    command = [program() or "nginx", "-p", str(folder), "-e", str(folder / "log"), "-c", str(config)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        eventually_sync((folder / "pid").exists, what="nginx")
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)
