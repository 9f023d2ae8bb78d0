"""A search in an order that the thread map does not have walks all threads of a user, however many."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway.serving import by_header, in_process

pytestmark = pytest.mark.anyio


async def test_more_threads_than_one_page_of_the_map_holds(replica: Replica, graphs: dict[str, Any]) -> None:
    ids = sorted(str(uuid4()) for _ in range(1002))
    for part in (ids[:501], ids[501:]):
        await replica.threads.claim_many(part, "alice")
    query = {"sort_by": "thread_id", "sort_order": "asc", "limit": 2, "offset": 1000}
    async with in_process(create_app(replica, graphs, authenticate=by_header), "alice") as client:
        answer = await client.post("/threads/search", json=query)
    assert [thread["thread_id"] for thread in answer.json()] == ids[1000:]
    assert answer.headers["x-pagination-total"] == "1002"
