"""Two gateways of DeerFlow on one Redis: a run in one, its events from the other, resumed after a cut.

All that changes in DeerFlow is an import in `langgraph_runtime()` of backend/app/gateway/deps.py:

    -    from deerflow.runtime import make_store, make_stream_bridge
    +    from deerflow.runtime import make_store
    +    from deerflow_replica.stream.deerflow import make_stream_bridge

Its config.yaml stays as it is. Below is what happens behind it: run it in DeerFlow's backend to see it with DeerFlow's
own classes, anywhere else without them. Uses REDIS_URL, else a private server, of the extra `embedded`.
Run it: python examples/deerflow_gateway.py
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from typing import Any

from deerflow_replica import AppConfig
from deerflow_replica.errors import MissingExtraError
from deerflow_replica.stream import open_stream_bridge
from deerflow_replica.stream.deerflow import make_stream_bridge
from deerflow_replica.testing import EmbeddedValkey


def opener() -> Any:
    try:
        from deerflow_replica.stream.deerflow import DeerFlowStreamBridge
    except MissingExtraError as missing:
        print(missing)
        return open_stream_bridge
    print(f"{DeerFlowStreamBridge.__name__} is a {DeerFlowStreamBridge.__base__}")
    return make_stream_bridge  # takes the configuration of DeerFlow, or ours


async def main(redis_url: str) -> None:
    config = AppConfig.from_mapping({"stream_bridge": {"type": "redis", "redis_url": redis_url}})
    open_bridge = opener()
    async with open_bridge(config) as worker, open_bridge(config) as gateway:
        await worker.publish("run-1", "metadata", {"run_id": "run-1"})
        await worker.publish("run-1", "values", {"messages": ["Hello!"]})
        client = gateway.subscribe("run-1")
        first = await anext(client)
        await client.aclose()  # its connection is cut; it comes back with the last id that it saw
        await worker.publish("run-1", "values", {"messages": ["Hello!", "Nothing is lost."]})
        await worker.publish_end("run-1")
        print(f"cut after {first.event} {first.id}, then:")
        async for item in gateway.subscribe("run-1", last_event_id=first.id):
            print(item.event, item.data)
        await gateway.cleanup("run-1")


if __name__ == "__main__":
    with ExitStack() as stack:
        asyncio.run(main(os.environ.get("REDIS_URL") or stack.enter_context(EmbeddedValkey()).url))
