"""`deerflow-replica migrate store`: LangGraph's items in a store of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from langgraph.store.postgres import PostgresStore as LangGraphStore
from psycopg.conninfo import make_conninfo

from command_line import Command, runner
from deerflow_replica.store import SqliteStore


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("database: {backend: sqlite, sqlite_dir: data}\n")
    return runner(monkeypatch, capsys)


@pytest.fixture
def source(postgres_dsn: str, postgres_schema: str) -> str:
    dsn = make_conninfo(postgres_dsn, options=f"-csearch_path={postgres_schema}")
    with LangGraphStore.from_conn_string(dsn) as theirs:
        theirs.setup()
        theirs.put(("users", "ann"), "k", {"n": 1})
        theirs.put(("users", "bob"), "k", {"n": 2})
    return dsn


def test_into_the_configured_store(run: Command, source: str, tmp_path: Path) -> None:
    assert run("migrate", "store", "--from", source) == (0, "read 2, written 2, skipped 0\n", "")
    assert run("migrate", "store", "--from", source) == (0, "read 2, written 0, skipped 2\n", "")
    assert run("migrate", "store", "--from", source, "--on-conflict", "replace").out.startswith("read 2, written 2")
    with SqliteStore(tmp_path / "data" / "deerflow_replica.db") as store:
        item = store.get(("users", "bob"), "k")
    assert item is not None
    assert item.value == {"n": 2}


def test_into_another_store(run: Command, source: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path / 'other.db'}"
    assert (
        run("migrate", "store", "--from", source, "--to", target, "--dry-run").out == "read 2, written 0, skipped 0\n"
    )
    assert run("migrate", "store", "--from", source, "--to", target).out == "read 2, written 2, skipped 0\n"


def test_what_is_wrong_is_told(run: Command, source: str, tmp_path: Path) -> None:
    for arguments in (
        ("--from", "nothing"),
        ("--from", "postgresql://127.0.0.1:1/x"),
        ("--from", source, "--to", "ftp://me:secret@host"),
    ):
        done = run("migrate", "store", *arguments)
        assert (done.code, done.out) == (1, "")
        assert done.err
        assert "secret" not in done.err
    (tmp_path / "config.yaml").write_text("database: {backend: memory}\n")
    assert "memory" in run("migrate", "store", "--from", source).err
