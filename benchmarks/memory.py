"""What memory documents cost, on files beside a naive storage, and on PostgreSQL in round trips; and what is kept.

    python benchmarks/memory.py [--smoke]

Exits with 1 when a limit is missed. `--smoke` runs everything tiny and judges nothing. MongoDB, too, where `MONGO_URL`
names one.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from _memory_worker import SCOPE, fact, storage
from _naive_memory import NaiveFileStorage
from _store_bench import Server
from _verdicts import Verdict, told
from _wire import Trips, counted_wire
from psycopg.conninfo import make_conninfo
from pymongo import MongoClient

from deerflow_replica.memory import FileMemoryStorage

WORKER = Path(__file__).with_name("_memory_worker.py")
FACTS = 50
PROCESSES = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny; only show that it runs, judge nothing")
    is_smoke = parser.parse_args().smoke
    with tempfile.TemporaryDirectory() as folder, Server(None) as server:
        print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, {server.name}")
        print(f"load average {os.getloadavg()[0]:.1f}")
        cases = {
            f"load of an unchanged document of {FACTS} facts": loads(Path(folder), 20 if is_smoke else 2000),
            "looks and round trips": trips(Path(folder), server),
            "two processes load, add a fact and save": kept(Path(folder), server, 5 if is_smoke else 50),
        }
        outcomes = []
        for title, verdicts in cases.items():
            print(f"\n{title}")
            outcomes.append(told(verdicts, is_judged=not is_smoke))
    return 0 if all(outcomes) or is_smoke else 1


def loads(folder: Path, rounds: int) -> Iterator[Verdict]:
    naive, ours = NaiveFileStorage(folder / "naive"), FileMemoryStorage(folder / "loads")
    for memory in (naive, ours):
        fill(memory)
    slow, fast = medians([lambda: naive.load(**SCOPE), lambda: ours.load(**SCOPE)], rounds)
    yield Verdict(f"files, p50 in us: {slow:.1f} to {fast:.1f}, how many times as long", fast / slow, 1.5, at_most=True)


def trips(folder: Path, server: Server) -> Iterator[Verdict]:
    files = FileMemoryStorage(folder / "trips")
    fill(files)
    yield Verdict("files: looks at the disk for a load", looks(lambda: files.load(**SCOPE)), 1, at_most=True)
    with (
        server.database() as dsn,
        counted_wire(server.address) as ((host, port), counted),
        storage("PostgreSQL", make_conninfo(dsn, host=host, port=port)) as memory,
    ):
        fill(memory)
        for _ in range(5):  # the third time a connection prepares a statement, which is one more
            save_one_more(memory, counted)
        loads = [spent(counted, lambda: memory.load(**SCOPE)) for _ in range(30)]
        saves = [save_one_more(memory, counted) for _ in range(30)]
    yield Verdict("PostgreSQL: round trips for a load", max(loads), 1, at_most=True)
    yield Verdict("PostgreSQL: round trips for a save without a conflict", max(saves), 2, at_most=True)


def save_one_more(memory: Any, counted: Trips) -> int:
    document = memory.load(**SCOPE)
    document["facts"].append(fact(uuid.uuid4().hex))
    return spent(counted, lambda: memory.save(document, **SCOPE))


def spent(counted: Trips, call: Callable[[], object]) -> int:
    before = counted.count
    call()
    return counted.count - before


def kept(folder: Path, server: Server, times: int) -> Iterator[Verdict]:
    naive = facts_kept("naive", str(folder / "naive"), times)
    with ExitStack() as stack:
        places = {
            "files": str(folder / "kept"),
            "SQLite": str(folder / "store.db"),
            "PostgreSQL": stack.enter_context(server.database()),
        }
        if url := os.environ.get("MONGO_URL"):
            places["MongoDB"] = url
            stack.callback(MongoClient[dict[str, Any]](url).drop_database, "deerflow")
        for backend, place in places.items():
            count = facts_kept(backend, place, times)
            yield Verdict(f"{backend}: facts of {PROCESSES * times} (naive: {naive})", count, PROCESSES * times)


def facts_kept(backend: str, place: str, times: int) -> int:
    with storage(backend, place):
        """So that there is something to open."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), backend, place, f"p{number}", str(times)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    with storage(backend, place) as memory:
        return len({one["id"] for one in memory.load(**SCOPE)["facts"] if one["id"].startswith("p")})


def fill(memory: Any) -> None:
    memory.save({"facts": [fact(f"fact-{number}") for number in range(FACTS)]}, **SCOPE)
    memory.load(**SCOPE)


def medians(rivals: list[Callable[[], object]], rounds: int) -> list[float]:
    """In us. They take turns, so that what disturbs the machine disturbs all of them."""
    times = [list[float]() for _ in rivals]
    for _ in range(rounds):
        for call, took in zip(rivals, times, strict=True):
            started = perf_counter()
            call()
            took.append((perf_counter() - started) * 1e6)
    return [median(took) for took in times]


def looks(call: Callable[[], object]) -> int:
    """How often it asks the system about a file, or opens one."""
    count = 0
    asked = {name: getattr(os, name) for name in ("stat", "lstat", "open", "scandir", "listdir")}

    def counting(ask: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            return ask(*arguments, **named)

        return counted

    try:
        for name, ask in asked.items():
            setattr(os, name, counting(ask))
        call()
    finally:
        for name, ask in asked.items():
            setattr(os, name, ask)
    return count


if __name__ == "__main__":
    sys.exit(main())
