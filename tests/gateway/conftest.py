"""One replica in memory, and an app on it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.replica import Replica, open_replica
from fresh_places import fresh_prefix, fresh_schema
from gateway.graphs import asking_graph, counting_graph
from gateway.server_process import Deployment, deployed, shared_parts
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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own reconnecting, without its pauses of seconds."""
    if hasattr(sys.modules.get("langgraph_sdk._async.http"), "_reconnect_delay"):  # older clients do not pause
        path = "langgraph_sdk._async.http._reconnect_delay"
        monkeypatch.setattr(path, lambda attempt, *, base, cap: 0.01)


@pytest.fixture
def graphs() -> dict[str, Any]:
    return {"agent": counting_graph(), "asking": asking_graph()}


@pytest.fixture
def shared(postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str) -> dict[str, Any]:
    """The configuration of every replica of one deployment."""
    return shared_parts(postgres_dsn, postgres_schema, redis_url, key_prefix)


@pytest.fixture(scope="module")
def deployment(postgres_dsn: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two replicas for the tests of a module that do not harm them."""
    with fresh_schema(postgres_dsn) as schema, fresh_prefix(redis_url) as prefix:
        config = shared_parts(postgres_dsn, schema, redis_url, prefix)
        with deployed(config, tmp_path_factory.mktemp("deployment")) as made:
            yield made
