"""A process that counts, for the tests that need several, or kill one.

python worker.py COUNTERS threads THREADS CALLS     count from so many threads, close, end
python worker.py COUNTERS steady DURABILITY LOG     count until killed; a line in LOG for each call that has returned
python worker.py COUNTERS probe LOG SECONDS         take the probe of one model; a line in LOG for each time it was held
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

from deerflow_replica.counters import (
    ModelCounters,
    ModelHealth,
    MongoModelCounters,
    PostgresModelCounters,
    RedisModelCounters,
    SqliteModelCounters,
)

INTERVAL_SECONDS = 0.2
PAUSE_SECONDS = 0.001


def build(place: str, **common: Any) -> ModelCounters:
    where = json.loads(place)
    if "path" in where:
        return SqliteModelCounters(where["path"], **common)
    if "redis_url" in where:
        return RedisModelCounters(**where, **common)
    if "uri" in where:
        return MongoModelCounters(**where, **common)
    return PostgresModelCounters(where["dsn"], schema=where["schema"], **common)


async def count_from_threads(place: str, threads: int, calls: int) -> None:
    async with build(place, flush_interval_seconds=0.01, flush_max_events=7) as counters:

        def work() -> None:
            for _ in range(calls):
                counters.record("m", "success", duration_seconds=0.5, usage={"input_tokens": 3})

        running = [threading.Thread(target=work) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            await asyncio.to_thread(thread.join)


async def count_until_killed(place: str, durability: Any, log: str) -> None:
    returned = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with build(
        place, durability=durability, flush_interval_seconds=INTERVAL_SECONDS, flush_max_events=10**9
    ) as it:
        while True:
            await it.arecord("m", "success")
            os.write(returned, f"{time.monotonic()}\n".encode())
            await asyncio.sleep(PAUSE_SECONDS)


async def probe_over_and_over(place: str, log: str, seconds: float) -> None:
    held = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with build(place) as counters:
        health = ModelHealth(counters, open_seconds=0.001, max_open_seconds=0.001, jitter=0, refresh_seconds=0.05)
        await health.refresh()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            permit = await health.acquire("m")
            if permit is None or not permit.probe:
                await asyncio.sleep(0.001)
                continue
            began = time.monotonic()
            await asyncio.sleep(0.002)
            os.write(held, f"{began} {time.monotonic()}\n".encode())
            await health.release(permit, "failure" if int(began * 1000) % 2 else "abandoned")


if __name__ == "__main__":
    _, place, what, *arguments = sys.argv
    if what == "threads":
        asyncio.run(count_from_threads(place, *map(int, arguments)))
    elif what == "probe":
        asyncio.run(probe_over_and_over(place, arguments[0], float(arguments[1])))
    else:
        asyncio.run(count_until_killed(place, *arguments))
