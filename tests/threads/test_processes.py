"""Several real processes on one empty database."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.testing._threads_common import until, walked
from deerflow_replica.threads import ThreadMap
from threads.replica_process import BACKENDS, built

pytestmark = pytest.mark.anyio

_PROCESSES = 5
_PROGRAM = Path(__file__).with_name("replica_process.py")


class Fleet:
    """The processes; a command is written to all of them before any answer is read."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self.processes = processes

    def all(self, command: str, **arguments: Any) -> list[Any]:
        return self.each(command, [arguments] * len(self.processes))

    def each(self, command: str, arguments: list[dict[str, Any]]) -> list[Any]:
        for process, given in zip(self.processes, arguments, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps([command, given]) + "\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self.processes if process.stdout is not None]


def started(stack: ExitStack, backend: str, keywords: dict[str, Any]) -> Fleet:
    command = [sys.executable, str(_PROGRAM), json.dumps([backend, keywords])]
    processes = [
        stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for _ in range(_PROCESSES)
    ]
    return Fleet(processes)


@pytest.fixture(params=BACKENDS)
def keywords(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    fixture = request.getfixturevalue
    if request.param == "sqlite":
        return "sqlite", {"path": str(tmp_path / "new" / "threads.db")}
    if request.param == "redis":
        return "redis", {"redis_url": fixture("redis_url"), "key_prefix": fixture("key_prefix")}
    if request.param == "mongodb":
        return "mongodb", {"uri": fixture("mongo_url"), "database": fixture("mongo_database")}
    return "postgres", {"dsn": fixture("postgres_dsn"), "schema": f"{fixture('postgres_schema')}_new"}


@pytest.fixture
def fleet(keywords: tuple[str, dict[str, Any]], request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with ExitStack() as stack:
        if keywords[0] == "postgres":
            stack.callback(_drop_schema, keywords[1])
        fleet = started(stack, *keywords)
        assert fleet.all("setup") == [True] * _PROCESSES
        yield fleet


@pytest.fixture
async def threads(fleet: Fleet, keywords: tuple[str, dict[str, Any]]) -> AsyncIterator[ThreadMap]:
    backend, given = keywords
    async with built(backend, given) as threads:
        yield threads


async def test_races(fleet: Fleet, threads: ThreadMap) -> None:
    """One fleet for all races: starting processes is what takes the time."""
    await one_of_a_hundred_claimers_owns(fleet, threads)
    await many_claims_are_shared_out(fleet, threads)
    await all_merges_survive(fleet, threads)
    await no_compare_and_set_is_lost(fleet, threads)
    await one_transfer_and_one_delete_wins(fleet, threads)
    await sweeps_add_up(fleet, threads)
    await walks_beside_writers_skip_and_repeat_nothing(fleet, threads)


async def one_of_a_hundred_claimers_owns(fleet: Fleet, threads: ThreadMap) -> None:
    answers = fleet.each("claim", [{"users": [f"{n}-{i}" for i in range(20)]} for n in range(_PROCESSES)])
    told = {user: given for answer in answers for user, given in answer["told"].items()}
    assert len(told) == 100
    [winner] = [user for user, (_, created, _) in told.items() if created]
    assert told.pop(winner) == [True, True, winner]
    assert all(given == [False, False, None] for given in told.values())
    assert {answer["owner"] for answer in answers} == {winner} == {await threads.owner_of("t")}
    assert await threads.count(winner) == 1


async def many_claims_are_shared_out(fleet: Fleet, threads: ThreadMap) -> None:
    created = fleet.each("claim_many", [{"user": f"m{n}", "count": 100} for n in range(_PROCESSES)])
    assert sum(created) == 100
    assert [await threads.count(f"m{n}") for n in range(_PROCESSES)] == created


async def all_merges_survive(fleet: Fleet, threads: ThreadMap) -> None:
    await threads.claim("merged", "ann")
    keys = [[f"{n}-{i}" for i in range(10)] for n in range(_PROCESSES)]
    fleet.each("merge", [{"thread_id": "merged", "keys": mine} for mine in keys])
    record = await threads.get("merged", user_id="ann")
    assert record is not None
    assert sorted(record.metadata) == sorted(key for mine in keys for key in mine)
    assert record.version == 1 + 10 * _PROCESSES


async def no_compare_and_set_is_lost(fleet: Fleet, threads: ThreadMap) -> None:
    await threads.claim("counter", "ann", metadata={"n": 0})
    fleet.all("compare_and_set", thread_id="counter", times=10)
    record = await threads.get("counter", user_id="ann")
    assert record is not None
    assert (record.metadata, record.version) == ({"n": 10 * _PROCESSES}, 1 + 10 * _PROCESSES)


async def one_transfer_and_one_delete_wins(fleet: Fleet, threads: ThreadMap) -> None:
    await threads.claim_many(["given", "deleted"], "ann")
    done = fleet.each("transfer", [{"thread_id": "given", "to_user_id": f"g{n}"} for n in range(_PROCESSES)])
    assert sum(done) == 1
    assert await threads.owner_of("given") == f"g{done.index(True)}"
    assert sum(fleet.all("delete", thread_id="deleted")) == 1


async def sweeps_add_up(fleet: Fleet, threads: ThreadMap) -> None:
    await threads.claim_many([f"brief {number}" for number in range(50)], "cat", ttl_seconds=0.01)

    async def are_gone() -> bool:
        return await threads.count("cat") == 0

    await until(are_gone)
    assert sum(fleet.all("sweep")) == 50


async def walks_beside_writers_skip_and_repeat_nothing(fleet: Fleet, threads: ThreadMap) -> None:
    stays = [f"stays {number:02}" for number in range(20)]
    moves = [[f"moves {n} {number:02}" for number in range(12)] for n in range(_PROCESSES)]
    together = [*stays, *(thread_id for mine in moves for thread_id in mine)]
    for thread_id in random.Random(7).sample(together, len(together)):
        await threads.claim(thread_id, "walker")
    lasting = {*stays, *(thread_id for mine in moves for number, thread_id in enumerate(mine) if number % 3)}
    commands = [{"user": "walker", "moves": mine, "name": f"new {n}"} for n, mine in enumerate(moves)]
    writing = asyncio.ensure_future(asyncio.to_thread(fleet.each, "write", commands))
    walks = 0
    while not writing.done() or not walks:
        by_creation = await walked(threads, "walker", beside_writers=True, limit=7, sort_by="created_at")
        assert sorted(seen for seen in by_creation if seen in lasting) == sorted(lasting)
        by_update = await walked(threads, "walker", beside_writers=True, limit=7)
        assert len(set(by_update)) == len(by_update)
        assert set(stays) <= set(by_update)
        walks += 1
    assert await writing == [12] * _PROCESSES


def _drop_schema(keywords: dict[str, Any]) -> None:
    import psycopg

    with psycopg.connect(keywords["dsn"], autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{keywords["schema"]}" CASCADE'.encode())
