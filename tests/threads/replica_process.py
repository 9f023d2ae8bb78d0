"""One replica in a process of its own: reads a command per line, answers with a line of JSON.

Its argument is a JSON object with the backend and its keywords.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from deerflow_replica import threads
from deerflow_replica.errors import VersionConflictError
from deerflow_replica.threads import ThreadMap

BACKENDS = {
    "sqlite": "SqliteThreadMap",
    "postgres": "PostgresThreadMap",
    "redis": "RedisThreadMap",
    "mongodb": "MongoThreadMap",
}


def built(backend: str, keywords: dict[str, Any]) -> ThreadMap:
    """Its driver alone is imported."""
    made: ThreadMap = getattr(threads, BACKENDS[backend])(**keywords)
    return made


async def setup(threads: ThreadMap) -> bool:
    await threads.setup()
    return True


async def claim(threads: ThreadMap, users: list[str]) -> dict[str, Any]:
    """All claim `t`: who was told what, and who owns it then."""
    claims = await asyncio.gather(*(threads.claim("t", user) for user in users))
    told = {
        user: [claim.granted, claim.created, None if claim.record is None else claim.record.user_id]
        for user, claim in zip(users, claims, strict=True)
    }
    return {"told": told, "owner": await threads.owner_of("t")}


async def claim_many(threads: ThreadMap, user: str, count: int) -> int:
    claims = await threads.claim_many([f"many {number}" for number in range(count)], user)
    return sum(claim.created for claim in claims)


async def merge(threads: ThreadMap, thread_id: str, keys: list[str]) -> int:
    done = [await threads.update(thread_id, user_id="ann", metadata={key: key}) for key in keys]
    return sum(record is not None for record in done)


async def compare_and_set(threads: ThreadMap, thread_id: str, times: int) -> int:
    """Adds one to the counter in the metadata, `times` times; returns how often it lost."""
    lost = 0
    while times:
        record = await threads.get(thread_id, user_id="ann")
        assert record is not None
        counted = {"n": record.metadata["n"] + 1}
        try:
            await threads.update(thread_id, user_id="ann", metadata=counted, if_version=record.version)
            times -= 1
        except VersionConflictError:
            lost += 1
    return lost


async def transfer(threads: ThreadMap, thread_id: str, to_user_id: str) -> bool:
    return await threads.transfer(thread_id, "ann", to_user_id)


async def delete(threads: ThreadMap, thread_id: str) -> bool:
    return await threads.delete(thread_id, user_id="ann")


async def sweep(threads: ThreadMap) -> int:
    total = 0
    while swept := await threads.sweep(limit=7):
        total += swept
    return total


async def write(threads: ThreadMap, user: str, moves: list[str], name: str) -> int:
    """Touches each, makes as many more, and deletes those at its own third places."""
    for number, thread_id in enumerate(moves):
        await threads.touch(thread_id, user_id=user)
        await threads.claim(f"{name} {number}", user)
        if number % 3 == 0:
            await threads.delete(thread_id, user_id=user)
    return len(moves)


async def serve(threads: ThreadMap) -> None:
    commands = {
        job.__name__: job for job in (setup, claim, claim_many, merge, compare_and_set, transfer, delete, sweep, write)
    }
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, arguments = json.loads(line)
        answer: Any = await commands[name](threads, **arguments)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await threads.close()


def main() -> None:
    backend, keywords = json.loads(sys.argv[1])
    asyncio.run(serve(built(backend, keywords)))


if __name__ == "__main__":
    main()
