"""`deerflow-replica serve` as its user sees it: what it refuses, what it says, its exit codes."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from cli.serve_process import HERE, START_SECONDS, command, is_ready, refused
from waiting import eventually_sync


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
        process.communicate(timeout=60)
    assert listening == f"listening on http://127.0.0.1:{port}\n"
    assert warning.startswith(f"warning: {path}:2:1 stream_brigde:")
    assert "stream_bridge" in warning
