"""`deerflow-replica check`: every part is asked, and a server that is down is named."""

from __future__ import annotations

import json
import os
import pty
import socketserver
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from command_line import Command, runner

PARTS = ["bridge", "store", "checkpointer", "memory", "threads", "counters", "runs"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return runner(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.upper().startswith(("DEER_FLOW_", "DEERFLOW_REPLICA__"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text("database: {backend: sqlite}\n")
    return path


def test_one_line_per_part(run: Command) -> None:
    done = run("check")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == PARTS
    assert all(line.split()[1] == "ok" for line in lines)
    assert "sqlite" in lines[1]


def test_json_has_the_results(run: Command, file: Path) -> None:
    done = run("check", "--config", str(file), "--json")
    found = json.loads(done.out)
    assert (done.code, found["ok"], found["errors"]) == (0, True, [])
    assert [part["name"] for part in found["parts"]] == PARTS
    assert set(found["parts"][0]) == {"name", "section", "ok", "detail", "seconds"}


def test_servers_that_are_down_are_named_with_their_places_and_no_password(run: Command, file: Path) -> None:
    file.write_text(
        "database: {backend: postgres, postgres_url: 'postgresql://u:geheim@127.0.0.1:1/x'}\n"
        "stream_bridge: {type: redis, redis_url: 'redis://:geheim@127.0.0.1:1/0'}\n"
    )
    done = run("check")
    first, second = done.err.splitlines()
    assert (done.code, done.out) == (1, "")
    assert first.startswith("config.yaml:2:41 stream_bridge.redis_url: cannot reach redis://:***@127.0.0.1:1/0: ")
    assert second.startswith("config.yaml:1:45 database.postgres_url: cannot reach postgresql://u:***@127.0.0.1:1/x: ")
    found = json.loads(run("check", "--json").out)
    assert (found["ok"], found["errors"], found["parts"]) == (False, [first, second], [])


def test_a_wrong_configuration_is_named(run: Command, file: Path) -> None:
    file.write_text("title: {max_words: 99}\n")
    done = run("check")
    assert done.code == 1
    assert done.err.startswith("config.yaml:1:20 title.max_words: ")
    file.write_text("database: {backend: memory}\nstore: {type: sqlite, text_index: {fields: [a]}}\n")
    done = run("check")
    assert done.code == 1
    assert done.err.startswith("config.yaml:2:35 store.text_index: ")


def test_a_part_that_does_not_answer_is_named_beside_those_that_do(run: Command, file: Path) -> None:
    file.write_text(f"database: {{backend: memory}}\nmemory: {{backend_config: {{storage_path: '{file}'}}}}\n")
    done = run("check")
    assert (done.code, done.err) == (1, "")
    states = {line.split()[0]: line.split()[1] for line in done.out.splitlines()}
    assert states == {**dict.fromkeys(PARTS, "ok"), "memory": "FAILED"}
    assert "no directory" in done.out
    found = json.loads(run("check", "--json").out)
    assert (found["ok"], [part["name"] for part in found["parts"] if not part["ok"]]) == (False, ["memory"])


def test_wrong_usage_is_2(run: Command) -> None:
    assert run("check", "--yaml").code == 2


def test_a_terminal_gets_a_table(file: Path) -> None:
    file.write_text("database: {backend: memory}\n")
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "deerflow_replica", "check"]
    env = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, env=env) as process:
        os.close(writer)
        shown = b""
        try:
            while part := os.read(reader, 65536):
                shown += part
        except OSError:  # how a terminal whose other side is gone ends
            pass
        finally:
            os.close(reader)
        assert process.stderr is not None
        assert (process.wait(), process.stderr.read()) == (0, b"")
    text = shown.decode()
    assert all(part in text for part in (*PARTS, "user_thread_mapping", "┃", "ok"))


def test_a_url_of_another_database_is_named_and_not_quoted(run: Command, file: Path) -> None:
    file.write_text("database: {backend: postgres, postgres_url: 'mysql://u:geheim@h/x'}\n")
    done = run("check")
    assert (done.code, done.out) == (1, "")
    assert done.err == "config.yaml:1:45 database.postgres_url: neither a postgresql:// URL nor a connection string\n"


def test_a_memory_folder_that_cannot_be_made_is_named(run: Command, file: Path) -> None:
    (file.parent / "taken").touch()
    file.write_text(
        "database: {backend: memory}\nmemory: {backend_config: {storage_path: taken/memory}}\n",
    )
    done = run("check")
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if line.startswith("memory")]
    assert "taken is no directory" in line


def test_a_redis_url_without_a_scheme_is_named_with_its_place(run: Command, file: Path) -> None:
    file.write_text("database: {backend: memory}\nstream_bridge: {type: redis, redis_url: 'localhost:6379'}\n")
    done = run("check")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("config.yaml:2:41 stream_bridge.redis_url: 'localhost:6379' is not a Redis URL")


class SpeaksHttp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_what_answers_but_is_no_redis_is_named(run: Command, file: Path) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), SpeaksHttp) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"redis://127.0.0.1:{server.server_address[1]}/0"
        file.write_text(f"database: {{backend: memory}}\nstream_bridge: {{type: redis, redis_url: '{url}'}}\n")
        done = run("check")
        server.shutdown()
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"config.yaml:2:41 stream_bridge.redis_url: cannot reach {url}: ")
