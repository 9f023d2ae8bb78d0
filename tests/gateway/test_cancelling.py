"""A run whose client has left is cancelled, also when the database is away at that moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.gateway.cancelling import cancel_when_gone
from deerflow_replica.replica import Replica
from gateway.calling import client_of, started
from waiting import eventually

pytestmark = pytest.mark.anyio


async def test_it_is_tried_until_the_database_is_back(
    replica: Replica, graphs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(create_app(replica, graphs)) as client:
        _, run_id = await started(client)
        await replica.runs.close()
        leaving = asyncio.ensure_future(cancel_when_gone(replica, run_id)())
        await eventually(lambda: "it cannot be cancelled yet" in caplog.text)
        await replica.runs.open()
        await leaving

        async def is_over() -> bool:
            record = await replica.runs.get(run_id)
            return record is not None and record.status != "running"

        await eventually(is_over)
