"""A thread that its user claims anew the moment after its deletion is a new one, and stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import open_replica
from deerflow_replica.threads import InMemoryThreadMap
from gateway.serving import IN_MEMORY, by_header, in_process

pytestmark = pytest.mark.anyio

THREAD = "0b7c1a9e-3f5d-4c55-9a0b-8d1f2e3a4b5c"


class EventfulMap(InMemoryThreadMap):
    """Something happens once, just after it has said that a thread is nobody's."""

    def __init__(self, then: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._then = then
        self.is_armed = False

    async def check_access(self, *args: Any, **options: Any) -> bool:
        allowed = await super().check_access(*args, **options)
        if self.is_armed and not allowed:
            self.is_armed = False
            await self._then()
        return allowed


async def test_the_deletion_leaves_the_new_thread_alone(graphs: dict[str, Any]) -> None:
    async def claimed_anew() -> None:
        assert (await threads.claim(THREAD, "ann")).created
        assert await replica.runs.create_thread(THREAD, user_id="ann") is not None

    async with (
        EventfulMap(claimed_anew) as threads,
        open_replica(AppConfig.from_mapping(IN_MEMORY), threads=threads) as replica,
        in_process(create_app(replica, graphs, authenticate=by_header), "ann") as client,
    ):
        await client.post("/threads", json={"thread_id": THREAD})
        threads.is_armed = True
        assert (await client.delete(f"/threads/{THREAD}")).status_code == 204
        assert not threads.is_armed
        assert await replica.runs.get_thread_head(THREAD) is not None
        assert (await client.get(f"/threads/{THREAD}")).status_code == 200
