"""A server process that is private to this one and goes with it: started, watched and ended through a guard."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from ..errors import StoreUnavailableError

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.005
_PORT_TRIES = 5
_PORTS = range(15_000, 32_000)
_SOCKET_PATH_LIMIT = 100  # bytes; sockaddr_un holds 104 to 108

Settings = Mapping[str, str | int]


class Account(NamedTuple):
    """Whom a server runs as; -1 is: as ourselves."""

    uid: int = -1
    gid: int = -1


class Guard:
    """The process that owns the server for us; see `guard.py`."""

    def __init__(self, base: Path, account: Account) -> None:
        script = Path(__file__).with_name("guard.py")
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and script
            [sys.executable, "-I", "-S", str(script), str(os.getpid()), str(base), *map(str, account)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._account = account
        self.directory = Path(self._answer()["directory"])

    def spawn(self, argv: list[str], *, log: Path, end_signal: signal.Signals) -> int:
        uid, gid = self._account
        answer = self._ask(
            do="spawn", argv=argv, env=_environment(), log=str(log), uid=uid, gid=gid, end_signal=end_signal
        )
        if "error" in answer:
            raise StoreUnavailableError(f"could not run {answer['error']}")
        return int(answer["pid"])

    def poll(self) -> int | None:
        return self._exit(self._ask(do="poll"))

    def end(self, number: signal.Signals) -> None:
        self._ask(do="end", signal=number, within_seconds=_STOP_SECONDS)

    def close(self) -> None:
        """End the server if it runs, remove the directory, and wait until that is done."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None  # noqa: S101  # for the type: it is a pipe
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise StoreUnavailableError("the embedded server's guard is gone, and the server with it") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  # for the type: it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise StoreUnavailableError("the embedded server's guard is gone, and the server with it")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @staticmethod
    def _exit(answer: dict[str, Any]) -> int | None:
        return None if answer["exit"] is None else int(answer["exit"])


class EmbeddedServer(ABC):
    """One private server: `with` starts and stops it; `kill()` and `restart()` are for fault tests.

    `data_dir` keeps the data after `stop()`; without it they go with the server. `port`: None listens on a Unix socket
    alone, a number on that loopback port, 0 on a free one. `settings` are the server's own. Not for several threads.
    Raises `MissingExtraError` without the wheel and `StoreUnavailableError` when the server does not start.
    """

    _name: ClassVar[str]
    _end_signal: ClassVar[signal.Signals]

    def __init__(
        self, data_dir: str | Path | None = None, *, port: int | None = None, settings: Settings | None = None
    ) -> None:
        self._kept_data = None if data_dir is None else Path(data_dir).absolute()
        self._wants_free_port = port == 0
        self._port = port
        self._settings = dict(settings or {})
        self._password = secrets.token_urlsafe(18)
        self._guard: Guard | None = None
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """The server's process id; `StoreUnavailableError` when it is not running."""
        if self._pid is None:
            raise StoreUnavailableError(f"embedded {self._name} is not running")
        return self._pid

    @property
    def directory(self) -> Path:
        """The private directory: the socket, the log and, without `data_dir`, the data."""
        if self._guard is None:
            raise StoreUnavailableError(f"embedded {self._name} is not running")
        return self._guard.directory

    @property
    def data_dir(self) -> Path:
        return self._kept_data or self.directory / "data"

    def start(self) -> None:
        """Start it, or start it again after `kill()`; returns when it answers."""
        if self._pid is not None:
            return
        if self._guard is None:
            self._open()
        self._spawn_ready()

    def stop(self) -> None:
        """End it and remove everything but a `data_dir` of the caller's; may be called again."""
        guard, self._guard, self._pid = self._guard, None, None
        if guard is not None:
            guard.close()

    def restart(self) -> None:
        """End it in its own way and start it on the same address; PostgreSQL, and a `data_dir`, keep their data."""
        self._end(self._end_signal)
        self.start()

    def kill(self) -> None:
        """SIGKILL; `start()` brings it back on the same address."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __del__(self) -> None:
        if getattr(self, "_guard", None) is not None:
            warnings.warn(f"unstopped {self!r}", ResourceWarning, source=self, stacklevel=1)
            self.stop()

    @abstractmethod
    def _account(self) -> Account:
        """Whom the server runs as."""

    @abstractmethod
    def _prepare(self, guard: Guard) -> None:
        """Make the data directory and the configuration, once."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The server's command line, in the foreground."""

    @abstractmethod
    def _is_ready(self, pid: int) -> bool:
        """Whether the server with this process id answers."""

    def _open(self) -> None:
        account = self._account()
        self._guard = Guard(_base_directory(account), account)
        try:
            self._prepare(self._guard)
        except BaseException:
            self.stop()
            raise

    def _spawn_ready(self) -> None:
        for last in (*[False] * (_PORT_TRIES - 1), True):
            if self._wants_free_port:
                self._port = _free_port()
            try:
                self._pid = self._run(self._command(), until=self._is_ready)
            except StoreUnavailableError as error:
                if self._wants_free_port and not last and "in use" in str(error):
                    continue
                self.stop()
                raise
            self._wants_free_port = False  # found: it stays over restarts
            return

    def _run(self, argv: list[str], *, until: Callable[[int], bool] | None = None) -> int:
        """Run a program until it is ready, or to its successful end."""
        guard, log = self._running_guard(), self.directory / "log"
        pid = guard.spawn(argv, log=log, end_signal=self._end_signal)
        deadline = time.monotonic() + _START_SECONDS
        while until is None or not until(pid):
            code = guard.poll()
            if code == 0 and until is None:
                break
            if code is not None or time.monotonic() > deadline:
                raise StoreUnavailableError(f"embedded {self._name} did not start: {_tail(log)}")
            time.sleep(_POLL_SECONDS)
        return pid

    def _end(self, number: signal.Signals) -> None:
        self._running_guard().end(number)
        self._pid = None

    def _running_guard(self) -> Guard:
        if self._guard is None:
            raise StoreUnavailableError(f"embedded {self._name} is not running")
        return self._guard

    def __repr__(self) -> str:
        return f"<{type(self).__name__} pid={self._pid}>"


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # nothing of ours: PGDATA and the like would be obeyed


def _base_directory(account: Account) -> Path:
    """A place for the private directory that the account can reach, short enough for a socket's path."""
    for base in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108  # mkdtemp makes it private
        fits = len(os.fsencode(base)) + len("/dfr-12345678/.s.PGSQL.65535.lock") <= _SOCKET_PATH_LIMIT
        if fits and base.is_dir() and (account.uid < 0 or open_to_all(base)):
            return base
    raise StoreUnavailableError("no temporary directory with a short path that the server can enter; set TMPDIR")


def _free_port() -> int:
    """Below those that the system gives to whoever asks for any: nobody takes it while the server restarts."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else "it left no log"


def open_to_all(path: Path, *, under: Path | None = None) -> bool:
    """Whether any user may read the file, or enter the directory; what is `under` our private directory is fine."""
    if under is not None and path.is_relative_to(under):
        return True
    existing = next(place for place in (path, *path.parents) if place.exists())
    if existing.is_file() and not existing.stat().st_mode & stat.S_IROTH:
        return False
    places = (existing, *existing.parents) if existing.is_dir() else existing.parents
    return all(place.stat().st_mode & stat.S_IXOTH for place in places)


def write_private(path: Path, text: str, account: Account) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if account.uid >= 0:
        os.chown(path, *account)
