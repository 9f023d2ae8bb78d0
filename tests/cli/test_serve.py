"""`deerflow-replica serve` as its user sees it: real processes, real signals, real exit codes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml

from deerflow_replica.cli.supervisor import pause_after
from waiting import eventually_sync

HERE = Path(__file__).parent
START_SECONDS = 40.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "deerflow_replica", "serve", *arguments]


def refused(*arguments: str, cwd: Path = HERE) -> tuple[int, str]:
    done = subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def local_config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"database": {"backend": "memory"}}))
    return path


@pytest.fixture
def shared_config(tmp_path: Path, postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str) -> Path:
    path = tmp_path / "config.yaml"
    sections = {
        "database": {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema},
        "stream_bridge": {"type": "redis", "redis_url": redis_url, "key_prefix": key_prefix},
        "user_thread_mapping": {"postgres_schema": postgres_schema},
        "model_feedback": {"postgres_schema": postgres_schema},
        "memory": {"backend_config": {"storage_path": str(tmp_path / "memory")}},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


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
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).is_success
    except httpx.TransportError:
        return False


def replica_of(port: int) -> tuple[str, int]:
    info = httpx.get(f"http://127.0.0.1:{port}/info", timeout=5).json()
    return info["replica_id"], info["pid"]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_serves_the_graph_and_ends_with_zero_on_sigterm(free_port: int, local_config: Path) -> None:
    with serving(free_port, local_config) as process:
        replica_id, pid = replica_of(free_port)
        assert replica_id
        assert pid == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_a_graph_that_cannot_be_loaded_is_named(local_config: Path) -> None:
    code, stderr = refused("--graph", "served:nothing", "--config", str(local_config))
    assert code == 2
    assert re.fullmatch(r"cannot load served:nothing: AttributeError: .*nothing.*\n", stderr)


def test_a_graph_needs_module_and_attribute(local_config: Path) -> None:
    code, stderr = refused("--graph", "served", "--config", str(local_config))
    assert code == 2
    assert "MODULE:ATTR" in stderr


@pytest.mark.parametrize(
    ("target", "said"), [("served:number", "graph 'agent' is a int"), ("served:uncompiled", "compile()")]
)
def test_what_is_no_graph_is_named(local_config: Path, target: str, said: str) -> None:
    code, stderr = refused("--graph", target, "--config", str(local_config), "--port", "0")
    assert code == 2
    assert said in stderr
    assert len(stderr.splitlines()) == 1


def test_a_hook_that_cannot_be_called_is_named(local_config: Path) -> None:
    options = ("--config", str(local_config), "--port", "0")
    code, stderr = refused("--graph", "served:make_echo", "--auth", "served:number", *options)
    assert code == 2
    assert stderr == "served:number is a int, not an authenticate hook\n"


def test_a_log_level_that_does_not_exist_is_refused(local_config: Path) -> None:
    options = ("--config", str(local_config), "--port", "0")
    code, stderr = refused("--graph", "served:make_echo", "--log-level", "loud", *options)
    assert code == 2
    assert "loud" in stderr


def test_what_no_child_can_open_is_named_once_and_ends_the_parent(shared_config: Path) -> None:
    sections = yaml.safe_load(shared_config.read_text())
    sections["memory"] = {"storage_class": "no_such_module:Storage"}
    shared_config.write_text(yaml.safe_dump(sections))
    options = ("--config", str(shared_config), "--port", "0")
    code, stderr = refused("--graph", "served:make_echo", "--replicas", "2", *options)
    assert code == 2
    assert "memory.storage_class" in stderr


def test_two_graphs_of_one_name_are_refused(local_config: Path) -> None:
    code, stderr = refused("--graph", "served:make_echo", "--graph", "served:make_echo", "--config", str(local_config))
    assert code == 2
    assert "two graphs are called 'agent'" in stderr


def test_a_wrong_value_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("log_level: info\ndatabase:\n  backend: oracle\n")
    code, stderr = refused("--graph", "served:make_echo", "--config", str(path))
    assert code == 2
    assert f"{path}:3:12 database.backend:" in stderr


def test_replicas_with_private_parts_are_refused_with_every_key(local_config: Path) -> None:
    code, stderr = refused("--graph", "served:make_echo", "--config", str(local_config), "--replicas", "2")
    assert code == 2
    assert [line.split(":")[0] for line in stderr.splitlines()] == ["stream_bridge.type", "database.backend"]


@pytest.mark.parametrize("section", ["checkpointer", "store", "user_thread_mapping", "model_feedback"])
def test_replicas_with_one_private_part_are_refused_with_its_key(tmp_path: Path, section: str) -> None:
    path = tmp_path / "config.yaml"
    sections = {
        "database": {"backend": "postgres", "postgres_url": "postgresql://127.0.0.1:1/x"},
        "stream_bridge": {"type": "redis", "redis_url": "redis://127.0.0.1:1/0"},
        section: {"type": "memory"},
    }
    path.write_text(yaml.safe_dump(sections))
    code, stderr = refused("--graph", "served:make_echo", "--config", str(path), "--replicas", "2")
    assert code == 2
    assert stderr == f"{section}.type: memory lives in one process\n"


def test_a_port_in_use_is_named(local_config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, stderr = refused("--graph", "served:make_echo", "--config", str(local_config), "--port", str(port))
    assert code == 1
    assert f"127.0.0.1:{port}" in stderr


def test_a_server_that_is_down_is_named_without_its_password(tmp_path: Path, free_port: int) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"stream_bridge:\n  type: redis\n  redis_url: redis://:hush@127.0.0.1:{free_port}/0\n"
        "database: {backend: memory}\n"
    )
    code, stderr = refused("--graph", "served:make_echo", "--config", str(path), "--port", "0")
    assert code == 1
    assert f"{path}:3:14 stream_bridge.redis_url: cannot reach redis://:***@127.0.0.1:{free_port}/0" in stderr
    assert "hush" not in stderr


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


def test_a_run_that_is_shorter_than_the_drain_ends_well(free_port: int, local_config: Path) -> None:
    with serving(free_port, local_config) as process:
        sleeper = Sleeper(free_port, 1.0)
        process.send_signal(signal.SIGTERM)
        assert sleeper.events()[-1] == "values"
        assert process.wait(timeout=10) == 0


def test_a_run_that_is_longer_than_the_drain_ends_as_an_error(free_port: int, local_config: Path) -> None:
    timeouts(local_config, drain_timeout_seconds=0.5)
    with serving(free_port, local_config) as process:
        sleeper = Sleeper(free_port, 300.0)
        process.send_signal(signal.SIGTERM)
        assert sleeper.events()[-1] == "error"
        assert process.wait(timeout=8) == 0


def test_a_second_sigterm_skips_the_wait(free_port: int, local_config: Path) -> None:
    with serving(free_port, local_config) as process:
        sleeper = Sleeper(free_port, 300.0)
        process.send_signal(signal.SIGTERM)
        eventually_sync(lambda: not is_ready(free_port), what="the drain")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=8) == 0
        with closing(sleeper._client), suppress(httpx.TransportError):
            sleeper.events()


def test_a_client_that_never_sends_its_body_does_not_keep_the_replica(free_port: int, local_config: Path) -> None:
    with serving(free_port, local_config) as process, socket.create_connection(("127.0.0.1", free_port)) as client:
        client.sendall(b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert httpx.get(f"http://127.0.0.1:{free_port}/ok").is_success
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=12) == 0


@pytest.mark.faults
def test_ctrl_c_lets_the_runs_of_every_replica_end(free_port: int, shared_config: Path) -> None:
    with serving(free_port, shared_config, "--replicas", "2") as parent:
        sleeper = Sleeper(free_port, 1.5)
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to the parent and its children alike
        assert sleeper.events()[-1] == "values"
        assert parent.wait(timeout=20) == 0


@pytest.mark.faults
def test_a_dead_replica_is_replaced_and_sigterm_ends_them_all(free_port: int, shared_config: Path) -> None:
    with serving(free_port, shared_config, "--replicas", "2") as parent:
        replica_id, pid = replica_of(free_port)
        assert pid != parent.pid
        os.kill(pid, signal.SIGKILL)
        seen: dict[str, int] = {}

        def two_others() -> bool:
            if is_ready(free_port):
                seen.update([replica_of(free_port)])
            return len(seen.keys() - {replica_id}) == 2

        eventually_sync(two_others, timeout=START_SECONDS, what="two living replicas")
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=30) == 0
        assert all(gone(pid) for pid in seen.values())


def test_a_replica_that_keeps_dying_is_replaced_more_and_more_slowly() -> None:
    pauses = [0.0]
    for served in (5.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 61.0, 0.1):
        pauses.append(pause_after(served, pauses[-1]))
    assert pauses[1:] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 1.0, 2.0]


@pytest.mark.faults
def test_a_second_sigterm_reaches_every_replica(free_port: int, shared_config: Path) -> None:
    with serving(free_port, shared_config, "--replicas", "2") as parent:
        sleeper = Sleeper(free_port, 300.0)
        parent.send_signal(signal.SIGTERM)
        eventually_sync(lambda: not is_ready(free_port), what="the drain")
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=10) == 0
        with closing(sleeper._client), suppress(httpx.TransportError):
            assert sleeper.events()[-1] == "error"


@pytest.mark.faults
def test_children_go_with_a_parent_that_is_killed(free_port: int, shared_config: Path) -> None:
    with serving(free_port, shared_config, "--replicas", "2") as parent:
        _, pid = replica_of(free_port)
        parent.kill()
        parent.wait()
        eventually_sync(lambda: gone(pid), timeout=30, what="the end of the child")


def test_it_says_where_it_listens_and_what_looks_wrong(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("database: {backend: memory}\nstream_brigde: {type: redis}\n")
    arguments = command("--graph", "echo=served:make_echo", "--config", str(path), "--port", "0")
    with subprocess.Popen(arguments, cwd=HERE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        warning, listening = process.stderr.readline(), process.stderr.readline()
        port = int(listening.rpartition(":")[2])
        eventually_sync(lambda: is_ready(port), timeout=START_SECONDS, what="ready")
        process.terminate()
        process.communicate(timeout=20)
    assert listening == f"listening on http://127.0.0.1:{port}\n"
    assert warning.startswith(f"warning: {path}:2:1 stream_brigde:")
    assert "stream_bridge" in warning
