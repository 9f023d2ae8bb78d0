"""A MongoDB for the tests where there is none: FerretDB, which speaks its protocol, built with Go, started privately.

Run as a script, it builds the server and says where it is, or why it cannot.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from building import CACHE as CACHES
from building import CannotBuildError, alone, run_tool, version_of
from ports import free_port

__all__ = ["CannotBuildError", "FerretDB", "program"]

SOURCES = Path(__file__).with_name("ferretdb")
CACHE = CACHES / "ferretdb"
_DOWNLOAD_SECONDS = 90.0
_BUILD_SECONDS = 400.0
_END_SECONDS = 60.0


class FerretDB:
    """One private server: `with FerretDB() as server: server.url`. Its data go with it.

    `kill()` and `start()` are for fault tests: the address stays, and so do the data.
    """

    def __init__(self) -> None:
        self._program = program()
        self._directory = tempfile.mkdtemp(prefix="ferretdb-")
        self._process: subprocess.Popen[str] | None = None
        self.url = f"mongodb://127.0.0.1:{free_port()}/"

    def start(self) -> None:
        address = self.url.removeprefix("mongodb://").rstrip("/")
        self._process = subprocess.Popen(
            [self._program, address, self._directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, f"FerretDB did not start on {address}"

    def kill(self) -> None:
        """SIGKILL; `start()` brings it back on the same address."""
        if self._process is not None:
            self._process.kill()
        self._wait()

    def stop(self) -> None:
        self._wait()
        shutil.rmtree(self._directory, ignore_errors=True)  # it did so itself, unless it was killed

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait(self) -> None:
        """It ends with its input."""
        if self._process is not None:
            self._process.communicate(timeout=_END_SECONDS)
            self._process = None


def program() -> Path:
    """The server's program, built at most once for these sources, also by several test runs at a time.

    Raises `CannotBuildError`.
    """
    built = CACHE / version_of(SOURCES.iterdir()) / "ferretdb"
    if built.exists():
        return built
    if shutil.which("go") is None:
        raise CannotBuildError("no MONGO_URL and no Go to build FerretDB")
    built.parent.mkdir(parents=True, exist_ok=True)
    with alone(CACHE / "lock"):
        if not built.exists():
            _build(built)
    return built


def _build(built: Path) -> None:
    """A registry out of reach shows in the download of one module, long before a build that needs sixty would."""
    _go("mod", "download", "github.com/FerretDB/FerretDB", seconds=_DOWNLOAD_SECONDS)
    pending = built.with_suffix(".new")
    _go("build", "-trimpath", "-ldflags=-s -w", "-o", str(pending), ".", seconds=_BUILD_SECONDS)
    pending.replace(built)


def _go(*arguments: str, seconds: float) -> None:
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    run_tool("FerretDB", "go", *arguments, cwd=SOURCES, environment=environment, seconds=seconds)


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{program()}\n")
    except CannotBuildError as error:
        sys.stdout.write(f"the tests of MongoDB are skipped: {error}\n")
