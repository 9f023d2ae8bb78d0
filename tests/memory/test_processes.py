"""Two real processes that save one document at once lose nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SAVER = """
import sys
from contextlib import nullcontext
from deerflow_replica import store
from deerflow_replica.memory import FileMemoryStorage, StoreMemoryStorage

kind, place, schema, name, times = sys.argv[1:]
made = {
    "files": lambda: nullcontext(FileMemoryStorage(place)),
    "sqlite": lambda: store.SqliteStore(place),
    "postgres": lambda: store.PostgresStore(place, schema=schema),
    "mongodb": lambda: store.MongoStore(place, database=schema),
}
with made[kind]() as opened:
    if kind != "files":
        opened.setup()
        opened = StoreMemoryStorage(opened)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(times)):
        document = opened.load("coder", user_id="ann")
        document["facts"].append({"id": f"{name}-{number}", "content": f"{name} learned {number}"})
        assert opened.save(document, "coder", user_id="ann")
    document = opened.load("coder", user_id="ann")
    print(document["revision"], *(fact["id"] for fact in document["facts"]), flush=True)
"""


@contextmanager
def saver(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is ready to save, and waits for a line."""
    command = [sys.executable, "-c", SAVER, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("kind", ["files", "sqlite"])
def test_two_processes_lose_nothing(kind: str, tmp_path: Path) -> None:
    both_lose_nothing(kind, str(tmp_path / "store.db" if kind == "sqlite" else tmp_path), "")


def test_two_processes_lose_nothing_in_postgres(postgres_dsn: str, postgres_schema: str) -> None:
    both_lose_nothing("postgres", postgres_dsn, postgres_schema)


def test_two_processes_lose_nothing_in_mongodb(mongo_url: str, mongo_database: str) -> None:
    both_lose_nothing("mongodb", mongo_url, mongo_database, times=10)  # what stands in for MongoDB here is slow


def both_lose_nothing(kind: str, place: str, schema: str, times: int = 50) -> None:
    with saver(kind, place, schema, "a", str(times)) as one, saver(kind, place, schema, "b", str(times)) as two:
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=300)[0].split() for process in (one, two)]
        assert (one.returncode, two.returncode) == (0, 0)
    revision, *facts = max(said, key=len)
    assert set(facts) == {f"{name}-{number}" for name in "ab" for number in range(times)}
    assert revision == str(2 * times)
