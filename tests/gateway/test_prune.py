"""Threads deleted in numbers, through the official client."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway.serving import by_header, in_process

pytestmark = pytest.mark.anyio


async def test_threads_are_pruned_that_are_the_callers(replica: Replica, graphs: dict[str, Any]) -> None:
    app = create_app(replica, graphs, authenticate=by_header)
    async with in_process(app, "alice") as alice, in_process(app, "mallory") as mallory:
        made = [(await alice.post("/threads", json={})).json()["thread_id"] for _ in range(3)]
        ran = await alice.post(f"/threads/{made[0]}/runs/wait", json={"assistant_id": "agent", "input": {"count": 1}})
        assert ran.status_code == 200
        asked = {"thread_ids": [*made[:2], made[0], str(uuid4())], "strategy": "delete"}
        assert (await mallory.post("/threads/prune", json=asked)).json() == {"pruned_count": 0}
        assert (await alice.post("/threads/prune", json=asked)).json() == {"pruned_count": 2}
        assert [thread["thread_id"] for thread in (await alice.post("/threads/search", json={})).json()] == [made[2]]
        assert (await alice.get(f"/threads/{made[0]}")).status_code == 404
        config: Any = {"configurable": {"thread_id": made[0]}}
        assert await replica.checkpointer.aget_tuple(config) is None


@pytest.mark.parametrize("body", [{}, {"thread_ids": ["x"]}, {"strategy": "keep_latest", "thread_ids": []}])
async def test_what_cannot_be_pruned_is_refused(replica: Replica, graphs: dict[str, Any], body: Any) -> None:
    async with in_process(create_app(replica, graphs)) as client:
        assert (await client.post("/threads/prune", json=body)).status_code == 422
