"""Tools that tests install or build for themselves once: one process at a time, within a time, or a reason to skip."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache"


class CannotBuildError(Exception):
    """A tool is not here, or the way to its packages is not: the text says which."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While this is held, no other process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def version_of(sources: Iterable[Path]) -> str:
    """Changes with the content of the files."""
    content = [source.read_bytes() for source in sorted(sources)]
    return hashlib.sha256(b"".join(content)).hexdigest()[:16]


def run_tool(what: str, *command: str, cwd: Path, seconds: float, environment: Mapping[str, str] | None = None) -> None:
    """Run `command` for `what`; `CannotBuildError` when it fails or takes longer."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    name = " ".join(command[:2])
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what it started too
        process.communicate()
        raise CannotBuildError(f"{what}: `{name}` took more than {seconds:g} s") from None
    if process.returncode:
        raise CannotBuildError(f"{what}: `{name}` failed: {_shortened(errors)}")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:150]} ... {line[-150:]}"
