"""Replicas within the process of the test, served on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from starlette.applications import Starlette

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import open_replica
from gateway.graphs import asking_graph, counting_graph
from gateway.serving import by_header, served


class LocalReplica(NamedTuple):
    app: Starlette
    url: str


@asynccontextmanager
async def local_replica(
    config: Mapping[str, Any], graphs: Mapping[str, Any] | None = None
) -> AsyncIterator[LocalReplica]:
    graphs = graphs or {"agent": counting_graph(), "asking": asking_graph()}
    async with open_replica(AppConfig.from_mapping(config)) as replica:
        app = create_app(replica, graphs, authenticate=by_header)
        async with served(app) as url:
            yield LocalReplica(app, url)


@asynccontextmanager
async def two_replicas(shared: Mapping[str, Any]) -> AsyncIterator[list[str]]:
    """The URLs of two replicas that share everything but this process's memory of them."""
    async with AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(local_replica(shared))).url for _ in range(2)]
