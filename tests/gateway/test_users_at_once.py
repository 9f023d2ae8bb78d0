"""Several users do everything at once, on two replicas: each sees their own, and what is found is what there is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import IN_MEMORY, by_header, in_process
from waiting import eventually

pytestmark = pytest.mark.anyio

RUN: dict[str, Any] = {"assistant_id": "agent", "input": {"count": 2, "pause": 0.005}}
STRATEGIES = ("enqueue", "reject", "interrupt", "rollback")


@pytest.fixture
async def replicas(
    postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str
) -> AsyncIterator[tuple[Replica, Replica]]:
    config = AppConfig.from_mapping(
        {
            "database": {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema},
            "stream_bridge": {**IN_MEMORY["stream_bridge"], "type": "redis", "redis_url": redis_url},
            "gateway": {"lease_seconds": 10},
        }
    ).evolve({"stream_bridge": {"key_prefix": key_prefix}})
    async with open_replica(config) as first, open_replica(config) as second:
        yield first, second


@dataclass
class User:
    """Acts at random, and remembers whose everything is."""

    name: str | None
    clients: list[httpx.AsyncClient]
    random: random.Random
    threads: set[str] = field(default_factory=set)
    others: list[User] = field(default_factory=list)

    @property
    def client(self) -> httpx.AsyncClient:
        return self.random.choice(self.clients)

    async def act(self, times: int) -> None:
        for _ in range(times):
            await self.random.choice([self.create, self.run, self.run, self.tag, self.cancel, self.delete, self.pry])()

    async def create(self) -> None:
        made = await self.client.post("/threads", json={"metadata": {"owner": self.name}})
        assert made.status_code == 200, made.text
        self.threads.add(made.json()["thread_id"])

    async def run(self) -> None:
        body = {**RUN, "multitask_strategy": self.random.choice(STRATEGIES)}
        stateless = self.random.random() < 0.2
        place = "" if stateless else f"/threads/{self.own()}"
        how = self.random.choice(["runs", "runs/wait", "runs/stream"])
        answer = await self.client.post(f"{place}/{how}", json=body)
        assert answer.status_code in (200,) if stateless else (200, 404, 409), answer.text

    async def tag(self) -> None:
        answer = await self.client.patch(f"/threads/{self.own()}", json={"metadata": {"n": self.random.random()}})
        assert answer.status_code in (200, 404), answer.text

    async def cancel(self) -> None:
        action = self.random.choice(["interrupt", "rollback"])
        answer = await self.client.post(f"/runs/cancel?action={action}", json={"status": "all"})
        assert answer.status_code in (204, 404), answer.text

    async def delete(self) -> None:
        thread_id = self.own()
        if len(self.threads) > 2 and thread_id in self.threads:
            self.threads.discard(thread_id)
            assert (await self.client.delete(f"/threads/{thread_id}")).status_code == 204

    async def pry(self) -> None:
        other = self.random.choice(self.others)
        thread_id = other.own()
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/state"), ("GET", "/runs"), ("POST", "/copy")):
            answer = await self.client.request(method, f"/threads/{thread_id}{path}")
            assert answer.status_code == 404, (method, path)
        taken = await self.client.post(f"/threads/{thread_id}/runs", json={**RUN, "if_not_exists": "create"})
        if taken.status_code == 200:  # it was nobody's, or is not any more
            assert thread_id not in other.threads
            self.threads.add(thread_id)
        else:
            assert taken.status_code == 404

    def own(self) -> str:
        return self.random.choice([*sorted(self.threads), str(uuid4())])


@pytest.mark.faults  # what it shows does not depend on the Python
@pytest.mark.parametrize("seed", [1])
async def test_each_sees_their_own_and_all_of_it(
    replicas: tuple[Replica, Replica], graphs: dict[str, Any], seed: int
) -> None:
    users = [User(name, [], random.Random(f"{seed}{name}")) for name in ("a", "b", None)]
    for user in users:
        apps = [create_app(one, graphs, authenticate=by_header if user.name else None) for one in replicas]
        user.clients = [in_process(app, user.name) for app in apps]
        user.others = [other for other in users if other is not user]
    await asyncio.gather(*(user.act(25) for user in users for _ in range(2)))
    for user in users:
        await _sees_all_of_it(user, replicas[0])
        for client in user.clients:
            await client.aclose()


async def _sees_all_of_it(user: User, replica: Replica) -> None:
    async def is_quiet() -> bool:
        return not await replica.runs.unfinished(user_id=user.name)

    await eventually(is_quiet)
    found = (await user.client.post("/threads/search", json={"limit": 1000})).json()
    assert {thread["thread_id"] for thread in found} == user.threads
    for status in ("idle", "busy", "interrupted", "error"):
        by_status = (await user.client.post("/threads/search", json={"status": status, "limit": 1000})).json()
        expected = [thread["thread_id"] for thread in found if thread["status"] == status]
        assert sorted(thread["thread_id"] for thread in by_status) == sorted(expected)
        assert (await user.client.post("/threads/count", json={"status": status})).json() == len(expected)
    for thread in found:
        tagged = (await user.client.post("/threads/search", json={"metadata": thread["metadata"]})).json()
        assert thread["thread_id"] in [one["thread_id"] for one in tagged] or len(tagged) == 10
