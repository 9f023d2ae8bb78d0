"""`deerflow-replica migrate store`: LangGraph's items in a store of ours."""

from __future__ import annotations

from pathlib import Path

import psycopg
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


AWAY = "postgresql://me:secret@127.0.0.1:1/x"


def test_a_source_that_is_away(run: Command) -> None:
    for source in (AWAY, "host=127.0.0.1 port=1 dbname=x user=me password=secret"):
        done = run("migrate", "store", "--from", source)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"the source {source.replace('secret', '***')} cannot be read: PostgreSQL is not")
        assert "--from" in done.err
        assert "target" not in done.err


@pytest.mark.parametrize("target", [AWAY, "mongodb://me:secret@127.0.0.1:1/x"])
def test_a_target_that_is_away(run: Command, source: str, target: str) -> None:
    done = run("migrate", "store", "--from", source, "--to", target)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"the target {target.replace('secret', '***')} cannot be written: ")
    assert "--to" in done.err
    assert "secret" not in done.err
    assert "source" not in done.err


def test_a_configured_target_that_is_away(run: Command, source: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"database: {{backend: postgres, postgres_url: '{AWAY}'}}\n")
    done = run("migrate", "store", "--from", source)
    assert done.code == 1
    assert done.err.startswith("the target postgresql://me:***@127.0.0.1:1/x cannot be written: ")
    assert "database.postgres_url" in done.err


def test_a_source_that_may_not_be_read(run: Command, source: str, postgres_schema: str) -> None:
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {postgres_schema}_nobody LOGIN".encode())
        try:
            done = run("migrate", "store", "--from", make_conninfo(source, user=f"{postgres_schema}_nobody"))
        finally:
            connection.execute(f"DROP ROLE {postgres_schema}_nobody".encode())
    assert done.code == 1
    assert done.err.startswith("the source ")


def test_what_is_wrong_is_told(run: Command, source: str, tmp_path: Path) -> None:
    for arguments in (
        ("--from", "nothing"),
        ("--from", source, "--to", "ftp://me:secret@host"),
        ("--from", source, "--to", "sqlite:other.db"),
        ("--from", source, "--to", "sqlite://other.db"),
    ):
        done = run("migrate", "store", *arguments)
        assert (done.code, done.out) == (1, "")
        assert done.err
        assert "secret" not in done.err
    assert not list(tmp_path.glob("sqlite*"))
    (tmp_path / "config.yaml").write_text("database: {backend: memory}\n")
    assert "memory" in run("migrate", "store", "--from", source).err
