"""Another replica: publishes a run from a process of its own. Run by the tests, not collected."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from deerflow_replica.errors import StreamError
from deerflow_replica.stream import RedisStreamBridge


async def main(url: str, prefix: str, push: Any, run_id: str, count: int, mode: str, lease_seconds: float) -> None:
    """`mode`: "end" after `count` events, "wait" for a line and go on, or go "on" until somebody says no."""
    async with RedisStreamBridge(
        redis_url=url,
        key_prefix=prefix,
        push=push,
        lease_seconds=lease_seconds,
        queue_maxsize=10**6,
        publish_timeout_seconds=600,  # it may be stopped for long
    ) as bridge:
        print("ready", flush=True)  # noqa: T201  # what the test waits for
        for number in range(count):
            await bridge.publish(run_id, "n", number)
            if number % 50 == 0:
                await bridge.flush()
        if mode == "end":
            await bridge.publish_end(run_id)
        elif mode == "on":
            print(await _outcome(_publish_for_ever(bridge, run_id, count)), flush=True)  # noqa: T201  # what the test waits for
        else:
            await bridge.flush()
            print("published", flush=True)  # noqa: T201  # what the test waits for
            await asyncio.to_thread(sys.stdin.readline)
            for call in (bridge.publish(run_id, "n", count), bridge.flush(run_id), bridge.publish_end(run_id)):
                print(await _outcome(call), flush=True)  # noqa: T201  # what the test waits for


async def _publish_for_ever(bridge: RedisStreamBridge, run_id: str, number: int) -> None:
    while True:
        await bridge.publish(run_id, "n", number)
        number += 1
        if number % 20 == 0:
            await bridge.flush(run_id)


async def _outcome(call: Coroutine[Any, Any, None]) -> str:
    try:
        await call
    except StreamError as error:
        return type(error).__name__
    return "stored"


if __name__ == "__main__":
    url, prefix, push, run_id, count, mode, lease_seconds = sys.argv[1:]
    asyncio.run(main(url, prefix, push, run_id, int(count), mode, float(lease_seconds)))
