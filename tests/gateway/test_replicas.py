"""Two replicas behind a proxy without sticky sessions, and the official client: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import open_replica
from gateway.balancing import Address, BalancingProxy
from gateway.graphs import asking_graph, counting_graph
from gateway.serving import Clients, by_header, served
from proxy import cutting_proxy
from waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

TESTS = Path(__file__).parent.parent


@pytest.fixture
def shared(postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str) -> dict[str, Any]:
    """The configuration of every replica of one deployment."""
    return {
        "database": {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema},
        "stream_bridge": {"type": "redis", "redis_url": redis_url, "key_prefix": key_prefix, "queue_maxsize": 10_000},
    }


@asynccontextmanager
async def _two_replicas(shared: dict[str, Any]) -> AsyncIterator[list[str]]:
    """The URLs of two replicas that share everything but this process's memory of them."""
    async with AsyncExitStack() as stack:
        urls = []
        for _ in range(2):
            replica = await stack.enter_async_context(open_replica(AppConfig.from_mapping(shared)))
            graphs = {"agent": counting_graph(), "asking": asking_graph()}
            urls.append(await stack.enter_async_context(served(create_app(replica, graphs, authenticate=by_header))))
        yield urls


def _address(url: str) -> Address:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own reconnecting, without its pauses of seconds."""
    if hasattr(sys.modules.get("langgraph_sdk._async.http"), "_reconnect_delay"):  # older clients do not pause
        path = "langgraph_sdk._async.http._reconnect_delay"
        monkeypatch.setattr(path, lambda attempt, *, base, cap: 0.01)


def _client_counts_cuts_anew() -> bool:
    """Newer clients count their five attempts from the last event on, older ones over the whole stream."""
    return tuple(int(part) for part in version("langgraph-sdk").split(".")[:3]) >= (0, 4, 14)


@pytest.mark.usefixtures("impatient")
async def test_the_client_gets_every_event_once_however_often_it_is_cut(shared: dict[str, Any], sdk: Clients) -> None:
    random_bytes = random.Random(7)
    async with _two_replicas(shared) as urls:
        # The answer's head has about 600 bytes: what is cut before it cannot be resumed by anyone.
        shortest, longest, least_cuts = (900, 6000, 20) if _client_counts_cuts_anew() else (9000, 12000, 4)
        proxy = BalancingProxy([_address(url) for url in urls], lambda: random_bytes.randrange(shortest, longest))
        async with proxy.running():
            for _ in range(4):
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
    assert proxy.cuts > least_cuts
    assert all(count > least_cuts / 4 for count in proxy.served.values())


async def test_the_client_reconnects_by_itself_at_the_other_replica(shared: dict[str, Any], sdk: Clients) -> None:
    """As it comes, with its own pauses."""
    async with _two_replicas(shared) as urls:
        proxy = BalancingProxy([_address(url) for url in urls])
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
    async with _two_replicas(shared) as urls:
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
    async with _two_replicas(shared) as urls:
        owner, other = (sdk(url, "alice") for url in urls)
        thread_id = (await owner.threads.create())["thread_id"]
        quick = await owner.runs.create(thread_id, "agent", input={"count": 3})
        assert (await other.runs.join(thread_id, quick["run_id"]))["total"] == 3
        slow = await owner.runs.create(thread_id, "agent", input={"count": 1000, "pause": 0.05})
        assert (await other.runs.get(thread_id, slow["run_id"]))["status"] in ("pending", "running")
        began = time.monotonic()
        await other.runs.cancel(thread_id, slow["run_id"], wait=True)
        assert time.monotonic() - began < 5
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
        replica = await stack.enter_async_context(open_replica(AppConfig.from_mapping(config)))
        app = create_app(replica, {"agent": counting_graph()}, authenticate=by_header)
        url = await stack.enter_async_context(served(app))
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
    async with httpx.AsyncClient(headers={"x-user": "alice"}) as client, client.stream("GET", url) as answer:
        return await anext(answer.aiter_bytes())


async def test_a_thread_is_created_by_one_of_many(shared: dict[str, Any]) -> None:
    async with _two_replicas(shared) as urls, httpx.AsyncClient() as client:
        thread_id = str(uuid4())
        answers = await asyncio.gather(
            *(
                client.post(f"{urls[n % 2]}/threads", json={"thread_id": thread_id}, headers={"x-user": f"user{n}"})
                for n in range(20)
            )
        )
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 19]


@asynccontextmanager
async def _two_processes(config: dict[str, Any]) -> AsyncIterator[list[tuple[asyncio.subprocess.Process, Address]]]:
    """Two replicas, each a process of its own, and where they listen."""
    processes = [await _begun(config) for _ in range(2)]
    try:
        yield [(process, await _listening(process)) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def _begun(config: dict[str, Any]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.server_process",
        json.dumps(config),
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=asyncio.subprocess.PIPE,
    )


async def _listening(process: asyncio.subprocess.Process) -> Address:
    assert process.stdout is not None
    port = int(await asyncio.wait_for(process.stdout.readline(), 30))
    await eventually(lambda: _is_up(port), timeout=30)
    return "127.0.0.1", port


async def _is_up(port: int) -> Any:
    async with httpx.AsyncClient(timeout=5) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
        except httpx.TransportError:
            return False


# The stream is ended by its readers before the run's lease has lapsed: it has no error event then.
READERS_FIRST = {"stream_bridge": {"lease_seconds": 1, "check_interval_seconds": 0.5}}


@pytest.mark.parametrize(
    ("settings", "limit", "stored"),
    [
        pytest.param({}, 15.0, True, id="defaults"),
        pytest.param({"gateway": {"lease_seconds": 3}}, 5.0, True, id="short lease"),
        pytest.param(
            {"stream_bridge": {"lease_seconds": 1, "check_interval_seconds": 0.5}}, 15.0, False, id="stream first"
        ),
    ],
)
async def test_the_run_of_a_killed_replica_ends_with_an_error(
    shared: dict[str, Any], sdk: Clients, settings: dict[str, Any], limit: float, stored: bool
) -> None:
    config = {**shared, **settings, "stream_bridge": {**shared["stream_bridge"], **settings.get("stream_bridge", {})}}
    async with _two_processes(config) as [(doomed, first), (_, second)], BalancingProxy([first, second]).running() as p:
        client = sdk(p.url, "alice")
        thread_id = (await client.threads.create())["thread_id"]
        owner = sdk(f"http://{first[0]}:{first[1]}", "alice")
        long = {"count": 10_000, "pause": 0.02}
        run = await owner.runs.create(thread_id, "agent", input=long, stream_mode="custom")
        numbers, ids, errors, killed = [], [], [], 0.0
        async for part in client.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"):
            ids.append(part.id)
            if part.event == "custom":
                numbers.append(part.data["n"])
            if part.event == "error":
                errors.append(part.data)
            if len(numbers) == 30 and not killed:
                doomed.kill()
                killed = time.monotonic()
        seconds = time.monotonic() - killed
        assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "error"
        assert (await client.runs.join(thread_id, run["run_id"]))["__error__"] == errors[0]
        assert (await client.threads.get(thread_id))["status"] == "error"
        after = await client.runs.wait(thread_id, "agent", input={"count": 2})
    assert numbers == list(range(len(numbers)))
    assert [error["error"] for error in errors] == ["RunOrphaned"]
    assert (ids[-1] not in (ids[-2], None, "")) is stored, (
        "a frame that is not in the stream has no id, one that is has its own"
    )
    assert seconds < limit
    assert after["total"] == 2  # type: ignore[call-overload]  # the SDK types values as a list too


async def test_a_replica_that_drains_sends_its_readers_on(shared: dict[str, Any], sdk: Clients) -> None:
    async with AsyncExitStack() as stack:
        apps, urls = [], []
        for _ in range(2):
            replica = await stack.enter_async_context(open_replica(AppConfig.from_mapping(shared)))
            apps.append(create_app(replica, {"agent": counting_graph()}, authenticate=by_header))
            urls.append(await stack.enter_async_context(served(apps[-1])))
        executing, leaving = (sdk(url, "alice") for url in urls)
        thread_id = (await executing.threads.create())["thread_id"]
        run = await executing.runs.create(thread_id, "agent", input={"count": 100, "pause": 0.03}, stream_mode="custom")
        proxy = await stack.enter_async_context(BalancingProxy([_address(urls[1]), _address(urls[0])]).running())
        numbers = []
        async for part in sdk(proxy.url, "alice").runs.join_stream(thread_id, run["run_id"], last_event_id="-1"):
            if part.event == "custom":
                numbers.append(part.data["n"])
            if len(numbers) == 20:
                await apps[1].state.gateway.drain()
        assert numbers == list(range(100))
        async with httpx.AsyncClient(base_url=urls[1], headers={"x-user": "alice"}) as client:
            assert (await client.get("/ready")).status_code == 503
            for path in ("runs", "runs/stream", "runs/wait"):
                answer = await client.post(f"/threads/{thread_id}/{path}", json={"assistant_id": "agent"})
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert len(await leaving.runs.list(thread_id)) == 1
