"""Replicas as processes, and what happens to their clients when one of them is killed, stopped or sent away."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from deerflow_replica.testing import EmbeddedValkey
from deerflow_replica.testing._contract import for_one_of
from gateway.balancing import BalancingProxy, address_of
from gateway.graphs import asking_graph, counting_graph
from gateway.replicas import LocalReplica, local_replica, two_replicas
from gateway.server_process import Deployment, deployed
from gateway.serving import IN_MEMORY, Clients
from gateway.slow_graphs import stepping_graph
from waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

LONG = {"count": 10_000, "pause": 0.02}


async def _numbers(client: LangGraphClient, thread_id: str, run_id: str) -> list[int]:
    """What a run has sent of mode custom, from its first event to its end."""
    parts = client.runs.join_stream(thread_id, run_id, last_event_id="-1")
    return [part.data["n"] async for part in parts if part.event == "custom"]


async def test_a_cancel_reaches_a_run_of_another_replica_within_a_second(deployment: Deployment, sdk: Clients) -> None:
    owner, other = (sdk(replica.url, "alice") for replica in deployment.replicas)
    thread_id = (await owner.threads.create())["thread_id"]
    waits = []
    for _ in range(20):
        run_id = (await owner.runs.create(thread_id, "agent", input=LONG))["run_id"]
        await eventually(partial(_has_status, other, thread_id, run_id, "running"))
        began = time.monotonic()
        await other.runs.cancel(thread_id, run_id, wait=True)
        waits.append(time.monotonic() - began)
        assert await _has_status(owner, thread_id, run_id, "interrupted")
    assert sorted(waits)[len(waits) // 2] < 1.0, "now and then it may be the machine"


async def _has_status(client: LangGraphClient, thread_id: str, run_id: str, status: str) -> bool:
    return (await client.runs.get(thread_id, run_id))["status"] == status


async def test_of_a_hundred_runs_that_reject_each_other_one_begins(deployment: Deployment, sdk: Clients) -> None:
    client = sdk(deployment.replicas[0].url, "alice")
    thread_id = (await client.threads.create())["thread_id"]
    body = {"assistant_id": "agent", "input": LONG, "multitask_strategy": "reject"}
    async with httpx.AsyncClient(headers={"x-user": "alice"}, timeout=120) as http:
        urls = [f"{replica.url}/threads/{thread_id}/runs" for replica in deployment.replicas] * 50
        answers = await asyncio.gather(*(http.post(url, json=body) for url in urls))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 99}
    [run] = await client.runs.list(thread_id, limit=100)
    await client.runs.cancel(thread_id, run["run_id"], wait=True)


DEFAULT = {"gateway": {"lease_seconds": 10}}
# The stream is ended by its readers before the run's lease has lapsed: it has no error event then.
READERS_FIRST = {**DEFAULT, "stream_bridge": {"lease_seconds": 1, "check_interval_seconds": 0.5}}


@pytest.mark.parametrize(
    ("settings", "limit", "stored"),
    [
        pytest.param(DEFAULT, 15.0, True, id="defaults"),
        pytest.param({"gateway": {"lease_seconds": 3}}, 5.0, True, id="short lease"),
        pytest.param(READERS_FIRST, 15.0, False, id="stream first"),
    ],
)
async def test_the_run_of_a_killed_replica_ends_with_an_error(
    shared: dict[str, Any], sdk: Clients, tmp_path: Path, settings: dict[str, Any], limit: float, stored: bool
) -> None:
    async def ends_in_time(attempt: float) -> bool:
        return await _seconds_to_its_end(shared, sdk, tmp_path / f"{attempt:.0f}", settings, stored) < limit

    assert await for_one_of((1, 2, 3), ends_in_time)


async def _seconds_to_its_end(
    shared: dict[str, Any], sdk: Clients, tmp_path: Path, settings: dict[str, Any], stored: bool
) -> float:
    config = {**shared, **settings, "stream_bridge": {**shared["stream_bridge"], **settings.get("stream_bridge", {})}}
    with deployed(config, tmp_path, replicas=1) as made:
        doomed = made.replicas[0]
        async with (
            local_replica(config) as survivor,
            BalancingProxy([doomed.address, address_of(survivor.url)]).running() as proxy,
        ):
            owner, client, beside = sdk(doomed.url, "alice"), sdk(proxy.url, "alice"), sdk(survivor.url, "alice")
            thread_id = (await client.threads.create())["thread_id"]
            run_id = (await owner.runs.create(thread_id, "agent", input=LONG, stream_mode="custom"))["run_id"]
            joined = asyncio.ensure_future(beside.runs.join(thread_id, run_id))
            parts, killed = [], 0.0
            async for part in client.runs.join_stream(thread_id, run_id, last_event_id="-1"):
                parts.append(part)
                if len(parts) == 30:
                    doomed.send(signal.SIGKILL)
                    killed = time.monotonic()
            seconds = time.monotonic() - killed
            assert await _has_status(client, thread_id, run_id, "error")
            assert (await joined)["__error__"] == parts[-1].data
            assert (await client.runs.join(thread_id, run_id))["__error__"] == parts[-1].data
            thread: Any = await client.threads.get(thread_id)
            assert (thread["status"], thread["values"]) == ("error", LONG)
            after: Any = await client.runs.wait(thread_id, "agent", input={"count": 2})
    assert [part.data["n"] for part in parts[1:-1]] == list(range(len(parts) - 2))
    assert (parts[-1].event, parts[-1].data["error"]) == ("error", "RunOrphaned")
    assert (parts[-1].id not in (parts[-2].id, None, "")) is stored, (
        "a frame that is not in the stream has no id, one that is has its own"
    )
    assert after["total"] == 2
    return seconds


async def test_a_replica_that_was_stopped_writes_nothing_when_it_wakes(
    shared: dict[str, Any], sdk: Clients, tmp_path: Path
) -> None:
    config = {**shared, "gateway": {"lease_seconds": 2}}
    graphs = {"stepping": stepping_graph()}
    with deployed(config, tmp_path, replicas=1) as made:
        async with local_replica(config, graphs) as other:
            stopped, client = made.replicas[0], sdk(other.url, "alice")
            thread_id = (await client.threads.create())["thread_id"]
            steps = {"steps": 10_000, "pause": 0.02}
            options: Any = {"input": steps, "stream_mode": "custom", "durability": "sync"}
            run_id = (await sdk(stopped.url, "alice").runs.create(thread_id, "stepping", **options))["run_id"]
            await eventually(lambda: _has_checkpoint(client, thread_id))
            stopped.send(signal.SIGSTOP)
            try:
                await eventually(lambda: _has_status(client, thread_id, run_id, "error"))
                await eventually(lambda: _is_mirrored(other, thread_id, "error"))
                before = await _all_of(client, thread_id, run_id)
            finally:
                stopped.send(signal.SIGCONT)
            # It serves again, so it has had its turn; and it has nothing to wait for, so it leaves at once.
            awake = sdk(stopped.url, "alice")
            another = (await awake.threads.create())["thread_id"]
            assert (await awake.runs.wait(another, "agent", input={"count": 3}))["total"] == 3  # type: ignore[call-overload]  # the SDK types values as a list too
            stopped.send(signal.SIGTERM)
            assert await stopped.exit_code(within=60) == 0
            assert await _all_of(client, thread_id, run_id) == before
            after: Any = await client.runs.wait(thread_id, "stepping", input={"steps": 0})
            assert after["done"] == before["checkpoint"]["values"]["done"] + 1


async def _is_mirrored(replica: LocalReplica, thread_id: str, status: str) -> bool:
    record = await replica.app.state.gateway.replica.threads.get(thread_id, user_id="alice")
    return bool(record is not None and record.status == status)


async def _has_checkpoint(client: LangGraphClient, thread_id: str) -> bool:
    values: Any = (await client.threads.get_state(thread_id))["values"]
    return bool(values and values.get("done", 0) > 5)


async def _all_of(client: LangGraphClient, thread_id: str, run_id: str) -> dict[str, Any]:
    """Everything that a run can have written."""
    thread = await client.threads.get(thread_id)
    return {
        "events": await _numbers(client, thread_id, run_id),
        "run": await client.runs.get(thread_id, run_id),
        "result": await client.runs.join(thread_id, run_id),
        "checkpoint": await client.threads.get_state(thread_id),
        "status": thread["status"],
        "updated_at": thread["updated_at"],
    }


async def test_replicas_that_are_replaced_one_by_one_lose_no_client(
    shared: dict[str, Any], sdk: Clients, tmp_path: Path
) -> None:
    """As a rolling update does it: a new one, the old one out of the balancer, SIGTERM, the next."""
    with deployed(shared, tmp_path) as made:
        async with BalancingProxy(made.addresses, one_request_each=True).running() as proxy:
            over, runs = asyncio.Event(), Counter[str]()
            async with asyncio.TaskGroup() as group:
                for name in ("ada", "bob", "eve"):
                    group.create_task(_run_after_run(proxy, sdk, name, runs, over))
                for leaving in list(made.replicas):
                    proxy.upstreams.append((await made.started()).address)
                    proxy.upstreams.remove(leaving.address)
                    await eventually(_grown(runs))  # whoever was on the way to it has arrived
                    leaving.send(signal.SIGTERM)
                    assert await leaving.exit_code(within=60) == 0
                over.set()
    assert len(proxy.served) == 4


async def _run_after_run(
    proxy: BalancingProxy, sdk: Clients, name: str, runs: Counter[str], over: asyncio.Event
) -> None:
    """Each of them seen whole; `runs` counts what has begun."""
    while not over.is_set():
        client = sdk(proxy.url, name)  # a new connection: nobody hands one of before to another replica
        thread_id = (await client.threads.create())["thread_id"]
        parts = client.runs.stream(thread_id, "agent", input={"count": 60, "pause": 0.02}, stream_mode="custom")
        assert (await anext(parts)).event == "metadata"
        runs[name] += 1
        assert [part.data["n"] async for part in parts] == list(range(60))


def _grown(counter: Counter[str]) -> Callable[[], bool]:
    """Whether each of its numbers has grown by two since."""
    before = Counter(counter)
    return lambda: all(counter[name] >= before[name] + 2 for name in before) and bool(before)


async def test_a_run_longer_than_the_drain_ends_as_an_error_for_every_reader(
    shared: dict[str, Any], sdk: Clients
) -> None:
    config = {**shared, "gateway": {"drain_timeout_seconds": 0.5}}
    async with local_replica(config) as leaving, local_replica(config) as staying:
        client = sdk(staying.url, "alice")
        thread_id = (await client.threads.create())["thread_id"]
        options: Any = {"input": LONG, "stream_mode": "custom"}
        run_id = (await sdk(leaving.url, "alice").runs.create(thread_id, "agent", **options))["run_id"]
        joined = asyncio.ensure_future(client.runs.join(thread_id, run_id))
        parts = client.runs.join_stream(thread_id, run_id, last_event_id="-1")
        assert (await anext(parts)).event == "metadata"
        await leaving.app.state.gateway.drain()
        last = [part async for part in parts][-1]
        assert (last.event, last.data["error"]) == ("error", "ReplicaShutdown")
        assert (await joined)["__error__"] == last.data
        assert await _has_status(client, thread_id, run_id, "error")
        assert (await client.threads.get(thread_id))["status"] == "error"
        after: Any = await client.runs.wait(thread_id, "agent", input={"count": 2})
        assert after["total"] == 2


async def test_a_stream_outlasts_a_restart_of_the_stream_server(
    shared: dict[str, Any], sdk: Clients, tmp_path: Path
) -> None:
    """Killed, and back with its data."""
    async with AsyncExitStack() as stack:
        kept = EmbeddedValkey(data_dir=tmp_path / "valkey", settings={"appendfsync": "always"})
        redis = stack.enter_context(kept)
        config = {**shared, "stream_bridge": {**shared["stream_bridge"], "redis_url": redis.url}}
        urls = await stack.enter_async_context(two_replicas(config))
        proxy = await stack.enter_async_context(BalancingProxy(map(address_of, urls)).running())
        client = sdk(proxy.url, "alice")
        thread_id = (await client.threads.create())["thread_id"]
        numbers = []
        parts = client.runs.stream(thread_id, "agent", input={"count": 100, "pause": 0.02}, stream_mode="custom")
        async for part in parts:
            if part.event == "custom":
                numbers.append(part.data["n"])
            if numbers[-1:] == [20]:
                await asyncio.to_thread(redis.kill)
                await asyncio.to_thread(redis.start)
        assert numbers == list(range(100))
        run_id = (await client.runs.list(thread_id))[0]["run_id"]
        assert await _numbers(sdk(urls[1], "alice"), thread_id, run_id) == list(range(100))


async def test_two_apps_of_one_process_do_not_mix(sdk: Clients) -> None:
    """Equal thread ids, other graphs of equal names; and one of them leaves."""
    async with (
        local_replica(IN_MEMORY, {"agent": counting_graph()}) as counting,
        local_replica(IN_MEMORY, {"agent": asking_graph()}) as asking,
    ):
        thread_id, found = str(uuid4()), []
        for url in (counting.url, asking.url):
            client = sdk(url, "alice")
            await client.threads.create(thread_id=thread_id)
            run = await client.runs.create(thread_id, "agent", input={"count": 2})
            found.append(set(await client.runs.join(thread_id, run["run_id"])))
            assert await client.runs.list(thread_id) == [await client.runs.get(thread_id, run["run_id"])]
        assert found == [{"count", "total"}, {"__interrupt__"}]
        await counting.app.state.gateway.drain()
        async with httpx.AsyncClient(timeout=60) as http:
            answers = [await http.get(f"{url}/ready") for url in (counting.url, asking.url)]
        assert [answer.status_code for answer in answers] == [503, 200]
        assert len({answer.headers["x-replica-id"] for answer in answers}) == 2
        after: Any = await sdk(asking.url, "alice").runs.wait(thread_id, "agent", command={"resume": "that"})
        assert after["answer"] == "that"
