"""The example's nginx in front of two replicas, and the official client behind it: cut, resumed, sent on."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import nginx
from gateway.balancing import BalancingProxy, address_of
from gateway.replicas import LocalReplica, local_replica
from gateway.serving import Clients

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.faults,
    pytest.mark.skipif(nginx.program() is None, reason="no nginx to run the example's configuration"),
]


@pytest.fixture
async def pair(shared: dict[str, Any]) -> AsyncIterator[tuple[LocalReplica, LocalReplica]]:
    async with local_replica(shared) as one, local_replica(shared) as other:
        yield one, other


Pair = tuple[LocalReplica, LocalReplica]


def test_nginx_finds_nothing_wrong(tmp_path: Path) -> None:
    config = tmp_path / "nginx.conf"
    config.write_text(nginx.adapted([("127.0.0.1", 1)], 8080, tmp_path))
    command = [str(nginx.program()), "-t", "-p", str(tmp_path), "-e", str(tmp_path / "log"), "-c", str(config)]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr


@pytest.mark.usefixtures("impatient")
async def test_a_stream_is_cut_on_every_side_and_goes_on(pair: Pair, sdk: Clients, tmp_path: Path) -> None:
    executing, leaving = pair
    owner = sdk(executing.url, "alice")
    thread_id = (await owner.threads.create())["thread_id"]
    numbers, ids = [], []
    async with BalancingProxy([address_of(executing.url)]).running() as behind:
        with nginx.running([address_of(leaving.url), address_of(behind.url)], tmp_path) as url:
            async with BalancingProxy([address_of(url)]).running() as before:
                run = await owner.runs.create(
                    thread_id, "agent", input={"count": 250, "pause": 0.02}, stream_mode="custom"
                )
                joined = sdk(before.url, "alice").runs.join_stream(thread_id, run["run_id"], last_event_id="-1")
                async for part in joined:
                    ids.append(part.id)
                    if part.event == "custom":
                        numbers.append(part.data["n"])
                    if numbers[-1:] == [20]:
                        before.cut()
                    if numbers[-1:] == [40]:
                        behind.cut()
                    if numbers[-1:] == [60]:
                        await leaving.app.state.gateway.drain()
                assert before.served[address_of(url)] > 2
                assert behind.served
    assert numbers == list(range(250))
    assert len(set(ids)) == len(ids)


async def test_events_and_heartbeats_come_at_once(shared: dict[str, Any], sdk: Clients, tmp_path: Path) -> None:
    config = {**shared, "gateway": {"heartbeat_interval_seconds": 0.2}}
    async with local_replica(config) as replica:
        client = sdk(replica.url, "alice")
        thread_id = (await client.threads.create())["thread_id"]
        run = await client.runs.create(thread_id, "agent", input={"count": 2, "pause": 300}, stream_mode="custom")
        path = f"/threads/{thread_id}/runs/{run['run_id']}/stream"
        with nginx.running([address_of(replica.url)], tmp_path) as url:
            headers = {"x-user": "alice", "last-event-id": "-1"}
            async with (
                httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http,
                http.stream("GET", path) as answer,
            ):
                assert answer.headers["location"] == path
                lines = [line async for line in _until(answer.aiter_lines(), "event: custom", ": heartbeat")]
        await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert [line for line in lines if line.startswith("event: ")] == ["event: metadata", "event: custom"]


async def _until(lines: AsyncIterator[str], first: str, last: str) -> AsyncIterator[str]:
    is_seen = False
    async for line in lines:
        yield line
        is_seen |= line == first
        if is_seen and line == last:
            return


async def test_what_a_leaving_replica_refuses_is_done_by_the_next(pair: Pair, sdk: Clients, tmp_path: Path) -> None:
    staying, leaving = pair
    thread_id = (await sdk(staying.url, "alice").threads.create())["thread_id"]
    await leaving.app.state.gateway.drain()
    with nginx.running([address_of(leaving.url), address_of(staying.url)], tmp_path) as url:
        client = sdk(url, "alice")
        for number in range(4):
            values: Any = await client.runs.wait(thread_id, "agent", input={"count": number})
            assert values["total"] == number
        assert len(await client.runs.list(thread_id)) == 4


async def test_a_run_that_may_have_begun_is_not_begun_again(pair: Pair, sdk: Clients, tmp_path: Path) -> None:
    one, other = pair
    thread_id = (await sdk(one.url, "alice").threads.create())["thread_id"]
    async with BalancingProxy([address_of(one.url)], lambda: 1).running() as breaking:
        with nginx.running([address_of(breaking.url), address_of(other.url)], tmp_path) as url:
            async with httpx.AsyncClient(base_url=url, headers={"x-user": "alice"}, timeout=60) as http:
                body = {"assistant_id": "agent", "input": {"count": 1}}
                codes = [(await http.post(f"/threads/{thread_id}/runs", json=body)).status_code for _ in range(4)]
    assert codes.count(502) == breaking.cuts > 0
    assert len(await sdk(other.url, "alice").runs.list(thread_id)) == 4
