"""Processes that count model calls, forked from one that has imported all of it, so that a start takes no time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Coroutine
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from deerflow_replica.counters import (
    ModelCounters,
    ModelHealth,
    MongoModelCounters,
    PostgresModelCounters,
    RedisModelCounters,
    SqliteModelCounters,
)
from deerflow_replica.counters._ledger import Snapshot

INTERVAL_SECONDS = 0.2
PAUSE_SECONDS = 0.001
KINDS: dict[str, Any] = {
    "mongodb": MongoModelCounters,
    "postgres": PostgresModelCounters,
    "redis": RedisModelCounters,
    "sqlite": SqliteModelCounters,
}

Place = tuple[str, dict[str, str]]
"""A kind of `KINDS`, and where it finds its store."""


def start(work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", *(f"deerflow_replica.counters.{kind}" for kind in KINDS)])
    process = context.Process(target=_run, args=(work, *arguments), daemon=True)
    process.start()
    return process


def kill(*processes: ForkServerProcess) -> None:
    for process in processes:
        process.kill()
        process.join()


def _run(work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
    asyncio.run(work(*arguments))


def build(place: Place, *, log: Log | None = None, **common: Any) -> ModelCounters:
    kind, where = place
    counters: ModelCounters = (KINDS[kind] if log is None else _telling(KINDS[kind], log))(**where, **common)
    return counters


class Log:
    """Lines that are written when they are said: what a killed process had said is all there."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, what: str, number: float) -> None:
        os.write(self._file, f"{what} {number!r} {time.monotonic()!r}\n".encode())


def said(path: Path, what: str) -> list[tuple[float, float]]:
    """Each number of this that was said so far, and when."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(number), float(at)) for word, number, at in map(str.split, lines) if word == what]


def _telling(kind: type[Any], log: Log) -> type[Any]:
    class Telling(kind):  # type: ignore[misc]  # one for each kind
        async def _write(self, snapshot: Snapshot) -> None:
            log.say("writing", snapshot.events)
            await super()._write(snapshot)
            log.say("written", snapshot.events)

    return Telling


async def count_from_threads(place: Place, threads: int, calls: int) -> None:
    async with build(place, flush_interval_seconds=0.01, flush_max_events=7) as counters:

        def work() -> None:
            for _ in range(calls):
                counters.record("m", "success", duration_seconds=0.5, usage={"input_tokens": 3})

        running = [threading.Thread(target=work) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            await asyncio.to_thread(thread.join)


async def count_until_killed(place: Place, durability: Any, path: Path) -> None:
    log, settings = Log(path), {"flush_interval_seconds": INTERVAL_SECONDS, "flush_max_events": 10**9}
    async with build(place, log=log, durability=durability, **settings) as counters:
        for number in range(1, 10**9):
            await counters.arecord("m", "success")
            log.say("returned", number)
            await asyncio.sleep(PAUSE_SECONDS)


async def probe_over_and_over(place: Place, path: Path, seconds: float) -> None:
    log = Log(path)
    async with build(place) as counters:
        health = ModelHealth(counters, open_seconds=0.001, max_open_seconds=0.001, jitter=0, refresh_seconds=0.05)
        await health.refresh()
        until = time.monotonic() + seconds
        while time.monotonic() < until or (len(said(path, "held")) < 3 and time.monotonic() < until + 60):
            permit = await health.acquire("m")
            if permit is None or not permit.probe:
                await asyncio.sleep(0.001)
                continue
            began = time.monotonic()
            await asyncio.sleep(0.002)
            log.say("held", began)
            await health.release(permit, "failure" if int(began * 1000) % 2 else "abandoned")
