"""One replica in memory, and an app on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.replica import Replica, open_replica
from gateway.graphs import asking_graph, counting_graph
from gateway.serving import IN_MEMORY, Clients


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    async with open_replica(AppConfig.from_mapping(IN_MEMORY)) as opened:
        yield opened


@pytest.fixture
async def sdk() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.aclose()


@pytest.fixture
def graphs() -> dict[str, Any]:
    return {"agent": counting_graph(), "asking": asking_graph()}
