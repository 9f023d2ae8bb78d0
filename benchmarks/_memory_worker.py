"""A process of several that save one scope: `BACKEND PLACE NAME TIMES`. It adds so many facts, one in each save."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _naive_memory import NaiveFileStorage

from deerflow_replica.memory import FileMemoryStorage, StoreMemoryStorage
from deerflow_replica.store import MongoStore, PostgresStore, SharedStore, SqliteStore

SCOPE = {"agent_name": "assistant", "user_id": "u1"}


@contextmanager
def storage(backend: str, place: str) -> Iterator[Any]:
    if backend == "naive":
        yield NaiveFileStorage(Path(place))
    elif backend == "files":
        yield FileMemoryStorage(place)
    else:
        with store(backend, place) as opened:
            opened.setup()
            yield StoreMemoryStorage(opened)


def store(backend: str, place: str) -> SharedStore:
    if backend == "PostgreSQL":
        return PostgresStore(place)
    return SqliteStore(place) if backend == "SQLite" else MongoStore(place)


def add_facts(memory: Any, name: str, times: int) -> None:
    for number in range(times):
        document = memory.load(**SCOPE)
        document["facts"].append(fact(f"{name}-{number}"))
        assert memory.save(document, **SCOPE)


def fact(name: str) -> dict[str, Any]:
    content = f"{name} likes tea with milk, in the afternoon, and says so"
    return {"id": name, "content": content, "category": "preference", "confidence": 0.9, "createdAt": "2025-01-01"}


if __name__ == "__main__":
    with storage(sys.argv[1], sys.argv[2]) as opened:
        print("ready", flush=True)
        sys.stdin.readline()
        add_facts(opened, sys.argv[3], int(sys.argv[4]))
