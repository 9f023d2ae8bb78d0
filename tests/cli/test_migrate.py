"""`deerflow-replica migrate`: every part's tables, made once and left alone after that."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from command_line import Command, runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return runner(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.upper().startswith(("DEER_FLOW_", "DEERFLOW_REPLICA__"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text("database: {backend: sqlite, sqlite_dir: data}\n")
    return path


@pytest.fixture
def postgres(file: Path, postgres_dsn: str, postgres_schema: str) -> Iterator[psycopg.Connection]:
    file.write_text(
        f"database: {{backend: postgres, postgres_url: '{postgres_dsn}', postgres_schema: {postgres_schema}}}\n"
    )
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


def _lines(out: str) -> dict[str, str]:
    return {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}


def test_sqlite(run: Command, tmp_path: Path) -> None:
    done = run("migrate")
    assert (done.code, done.err) == (0, "")
    told = _lines(done.out)
    assert list(told) == ["database", "checkpointer", "store", "user_thread_mapping", "model_feedback"]
    ours = tmp_path / "data" / "deerflow_replica.db"
    assert told["user_thread_mapping"] == f"ready: sqlite {ours}"
    assert _tables(ours) >= {"user_thread_mappings", "store_items"}
    assert "checkpoints" in _tables(tmp_path / "data" / "deerflow.db")


def test_once_more_changes_nothing(run: Command, tmp_path: Path) -> None:
    assert run("migrate").code == 0
    ours = tmp_path / "data" / "deerflow_replica.db"
    with closing(sqlite3.connect(ours)) as connection:
        connection.execute(
            "INSERT INTO user_thread_mappings (tenant, thread_id, user_id, status, metadata, created_at, updated_at,"
            " version, change) VALUES ('default', 't', 'ann', 'idle', '{}', 1, 1, 1, 'x')"
        )
        connection.commit()
    before = _tables(ours)
    assert run("migrate").code == 0
    assert _tables(ours) == before
    with closing(sqlite3.connect(ours)) as connection:
        assert connection.execute("SELECT user_id FROM user_thread_mappings").fetchall() == [("ann",)]


def test_postgres(run: Command, postgres: psycopg.Connection, postgres_schema: str) -> None:
    for _ in range(2):
        done = run("migrate")
        assert (done.code, done.err) == (0, "")
        assert _lines(done.out)["user_thread_mapping"].endswith(postgres_schema)
    found = postgres.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [postgres_schema]).fetchall()
    assert {name for (name,) in found} >= {"user_thread_mappings", "checkpoints"}


def test_in_memory_there_is_nothing_to_do(run: Command, file: Path) -> None:
    file.write_text("database: {backend: memory}\n")
    done = run("migrate")
    assert done.code == 0
    assert set(_lines(done.out).values()) == {"in memory: nothing to set up"}


def test_the_bridge_is_not_needed_and_databases_are_named(run: Command, file: Path) -> None:
    bridge = "stream_bridge: {type: redis, redis_url: 'redis://127.0.0.1:1/0'}\n"
    file.write_text(f"database: {{backend: sqlite, sqlite_dir: data}}\n{bridge}")
    assert run("migrate").code == 0
    file.write_text(f"database: {{backend: postgres, postgres_url: 'postgresql://u:geheim@127.0.0.1:1/x'}}\n{bridge}")
    done = run("migrate")
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert line.startswith("config.yaml:1:45 database.postgres_url: cannot reach postgresql://u:***@127.0.0.1:1/x: ")


def _tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


@pytest.mark.parametrize("command", ["migrate", "check", "models"])
def test_a_user_without_rights_is_told_where(
    run: Command, file: Path, postgres: psycopg.Connection, postgres_schema: str, postgres_dsn: str, command: str
) -> None:
    role = f"poor_{postgres_schema}"
    postgres.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {postgres_schema} TO {role}".encode())
    try:
        dsn = make_conninfo(postgres_dsn, options=f"-crole={role}")
        file.write_text(
            f"database:\n  backend: postgres\n  postgres_schema: {postgres_schema}\n  postgres_url: {json.dumps(dsn)}\n"
        )
        done = run(command)
    finally:
        postgres.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert (done.code, done.out) == (1, "")
    said = f"PostgreSQL forbids it: permission denied for schema {postgres_schema}\n"
    assert done.err == f"config.yaml:4:17 database.postgres_url: {said}"
