"""A process that counts, for the tests that need several, or kill one.

python worker.py COUNTERS threads THREADS CALLS     count from so many threads, close, end
python worker.py COUNTERS steady DURABILITY LOG     count until killed; a line in LOG for each call that has returned
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


if __name__ == "__main__":
    _, place, what, *arguments = sys.argv
    if what == "threads":
        asyncio.run(count_from_threads(place, *map(int, arguments)))
    else:
        asyncio.run(count_until_killed(place, *arguments))
