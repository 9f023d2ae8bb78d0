"""A replica that leaves: what waits at it goes on elsewhere, what runs at it ends there, and no reader is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.balancing import BalancingProxy, address_of
from gateway.replicas import local_replica
from gateway.serving import Clients

pytestmark = [pytest.mark.anyio, pytest.mark.faults]


async def test_a_run_in_line_is_taken_over_with_its_readers(shared: dict[str, Any], sdk: Clients) -> None:
    config = {**shared, "gateway": {"lease_seconds": 10}}
    async with local_replica(config) as leaving, local_replica(config) as staying:
        proxy = BalancingProxy([address_of(leaving.url), address_of(staying.url)])
        async with proxy.running():
            at_leaving = sdk(leaving.url, "alice")
            thread_id = (await at_leaving.threads.create())["thread_id"]
            first, second = [
                await at_leaving.runs.create(thread_id, "agent", input={"count": count, "pause": 0.02}, stream_mode=[])
                for count in (200, 3)
            ]
            client = sdk(proxy.url, "alice")
            joins = [
                asyncio.ensure_future(sdk(leaving.url, "alice").runs.join(thread_id, first["run_id"])),
                asyncio.ensure_future(_told(client, thread_id, second["run_id"])),
            ]
            place = f"{leaving.url}/threads/{thread_id}/runs/{second['run_id']}"
            async with (
                httpx.AsyncClient(headers={"x-user": "alice"}, timeout=60) as plain,
                plain.stream("GET", f"{place}/stream") as waiting,
            ):
                await leaving.app.state.gateway.drain()
                with pytest.raises(httpx.RemoteProtocolError):
                    await waiting.aread()
            assert await asyncio.gather(*joins) == [{"count": 200, "pause": 0.02, "total": 200}, ["metadata", "values"]]
            runs = await client.runs.list(thread_id)
    assert [run["status"] for run in runs] == ["success", "success"]


async def _told(client: Any, thread_id: str, run_id: str) -> list[str]:
    """The last two events of a stream, as the official client follows it."""
    return [part.event async for part in client.runs.join_stream(thread_id, run_id, last_event_id="-1")][:2]
