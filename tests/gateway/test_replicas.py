"""Two replicas behind a proxy without sticky sessions, and the official client: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.balancing import BalancingProxy, address_of
from gateway.replicas import local_replica, two_replicas
from gateway.serving import Clients
from proxy import cutting_proxy

pytestmark = [pytest.mark.anyio, pytest.mark.faults]


def _client_counts_cuts_anew() -> bool:
    """Newer clients count their five attempts from the last event on, older ones over the whole stream."""
    return tuple(int(part) for part in version("langgraph-sdk").split(".")[:3]) >= (0, 4, 14)


@pytest.mark.usefixtures("impatient")
async def test_the_client_gets_every_event_once_however_often_it_is_cut(shared: dict[str, Any], sdk: Clients) -> None:
    random_bytes = random.Random(7)
    async with two_replicas(shared) as urls:
        # The answer's head has about 600 bytes: what is cut before it cannot be resumed by anyone.
        shortest, longest = (900, 6000) if _client_counts_cuts_anew() else (9000, 12000)
        proxy = BalancingProxy(map(address_of, urls), lambda: random_bytes.randrange(shortest, longest))
        async with proxy.running():
            while proxy.cuts < 50:
                client = sdk(proxy.url, "alice")  # new connections: one of before may be cut within the next head
                thread = await sdk(urls[0], "alice").threads.create()
                numbers, ids = [], []
                async for part in client.runs.stream(
                    thread["thread_id"], "agent", input={"count": 400, "pause": 0.001}, stream_mode="custom"
                ):
                    ids.append(part.id)
                    if part.event == "custom":
                        numbers.append(part.data["n"])
                assert numbers == list(range(400))
                assert len(set(ids)) == len(ids) == 401
    assert len(proxy.served) == 2
    assert all(count > 20 for count in proxy.served.values())


async def test_the_client_reconnects_by_itself_at_the_other_replica(shared: dict[str, Any], sdk: Clients) -> None:
    """As it comes, with its own pauses."""
    async with two_replicas(shared) as urls:
        proxy = BalancingProxy(map(address_of, urls))
        async with proxy.running():
            client = sdk(proxy.url, "alice")
            thread = await client.threads.create()
            numbers = []
            async for part in client.runs.stream(
                thread["thread_id"], "agent", input={"count": 100, "pause": 0.02}, stream_mode="custom"
            ):
                if part.event == "custom":
                    numbers.append(part.data["n"])
                    if len(numbers) == 20:
                        proxy.cut()
    assert numbers == list(range(100))


@pytest.mark.usefixtures("impatient")
async def test_replay_meets_live_without_a_seam(shared: dict[str, Any], sdk: Clients) -> None:
    """Many joins at every moment of a run at full speed, at both replicas."""
    async with two_replicas(shared) as urls:
        owner, other = (sdk(url, "alice") for url in urls)
        thread = await owner.threads.create()
        thread_id = thread["thread_id"]
        run = await owner.runs.create(thread_id, "agent", input={"count": 1500, "pause": 0.0005}, stream_mode="custom")

        async def joined(client: Any) -> list[int]:
            parts = client.runs.join_stream(thread_id, run["run_id"], last_event_id="-1")
            return [part.data["n"] async for part in parts if part.event == "custom"]

        joins: list[asyncio.Task[list[int]]] = []
        async for part in owner.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"):
            if part.event == "custom" and part.data["n"] % 50 == 0:
                joins.append(asyncio.create_task(joined(other if len(joins) % 2 else owner)))
        assert len(joins) == 30
        for numbers in await asyncio.gather(*joins):
            assert numbers == list(range(1500))


async def test_a_run_is_seen_joined_and_cancelled_at_the_other_replica(shared: dict[str, Any], sdk: Clients) -> None:
    async with two_replicas(shared) as urls:
        owner, other = (sdk(url, "alice") for url in urls)
        thread_id = (await owner.threads.create())["thread_id"]
        quick = await owner.runs.create(thread_id, "agent", input={"count": 3})
        assert (await other.runs.join(thread_id, quick["run_id"]))["total"] == 3
        slow = await owner.runs.create(thread_id, "agent", input={"count": 1000, "pause": 0.05})
        assert (await other.runs.get(thread_id, slow["run_id"]))["status"] in ("pending", "running")
        began = time.monotonic()
        await other.runs.cancel(thread_id, slow["run_id"], wait=True)
        assert time.monotonic() - began < 30
        assert (await owner.runs.get(thread_id, slow["run_id"]))["status"] == "interrupted"
        assert [thread["thread_id"] for thread in await other.threads.search()] == [thread_id]
        stranger = sdk(urls[1], "mallory")
        assert await stranger.threads.search() == []
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await stranger.runs.get(thread_id, slow["run_id"])
        assert refused.value.response.status_code == 404


async def test_a_stream_outlasts_a_stream_server_that_is_away_for_a_while(
    shared: dict[str, Any], redis_url: str, sdk: Clients
) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(cutting_proxy(redis_url))
        config = {
            **shared,
            "stream_bridge": {**shared["stream_bridge"], "redis_url": redis.url},
            "gateway": {"heartbeat_interval_seconds": 0.2},
        }
        _, url = await stack.enter_async_context(local_replica(config))
        client = sdk(url, "alice")
        thread_id = (await client.threads.create())["thread_id"]
        numbers = []
        async for part in client.runs.stream(
            thread_id, "agent", input={"count": 80, "pause": 0.02}, stream_mode="custom"
        ):
            if part.event == "custom":
                numbers.append(part.data["n"])
            if len(numbers) == 20:
                redis.is_refusing = True
                redis.cut()
                run_id = (await client.runs.list(thread_id))[0]["run_id"]
                assert await _first_bytes(f"{url}/threads/{thread_id}/runs/{run_id}/stream") == b": heartbeat\n\n"
                redis.is_refusing = False
    assert numbers == list(range(80))


async def _first_bytes(url: str) -> bytes:
    async with (
        httpx.AsyncClient(headers={"x-user": "alice"}, timeout=60) as client,
        client.stream("GET", url) as answer,
    ):
        return await anext(answer.aiter_bytes())


async def test_a_thread_is_created_by_one_of_many(shared: dict[str, Any]) -> None:
    async with two_replicas(shared) as urls, httpx.AsyncClient(timeout=60) as client:
        thread_id = str(uuid4())
        answers = await asyncio.gather(
            *(
                client.post(f"{urls[n % 2]}/threads", json={"thread_id": thread_id}, headers={"x-user": f"user{n}"})
                for n in range(20)
            )
        )
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 19]


async def test_a_replica_that_drains_sends_its_readers_on(shared: dict[str, Any], sdk: Clients) -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(local_replica(shared)) for _ in range(2)]
        urls = [replica.url for replica in replicas]
        executing, leaving = (sdk(url, "alice") for url in urls)
        thread_id = (await executing.threads.create())["thread_id"]
        run = await executing.runs.create(thread_id, "agent", input={"count": 100, "pause": 0.03}, stream_mode="custom")
        proxy = await stack.enter_async_context(BalancingProxy(map(address_of, reversed(urls))).running())
        numbers = []
        async for part in sdk(proxy.url, "alice").runs.join_stream(thread_id, run["run_id"], last_event_id="-1"):
            if part.event == "custom":
                numbers.append(part.data["n"])
            if len(numbers) == 20:
                await replicas[1].app.state.gateway.drain()
        assert numbers == list(range(100))
        async with httpx.AsyncClient(base_url=urls[1], headers={"x-user": "alice"}, timeout=60) as client:
            assert (await client.get("/ready")).status_code == 503
            for path in ("runs", "runs/stream", "runs/wait"):
                answer = await client.post(f"/threads/{thread_id}/{path}", json={"assistant_id": "agent"})
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert len(await leaving.runs.list(thread_id)) == 1
