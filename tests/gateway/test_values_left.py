"""A thread shows the values that it has, however its last run ended."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient

from deerflow_replica.replica import Replica
from gateway.threads_of_talk import sdk_of, talking_app
from runs.graphs import fail, one, steps, wait_for_ever
from waiting import eventually

pytestmark = pytest.mark.anyio

HI: dict[str, Any] = {"log": ["hi"]}


async def _log(sdk: LangGraphClient, thread_id: str) -> Any:
    thread: Any = await sdk.threads.get(thread_id)
    state: Any = await sdk.threads.get_state(thread_id)
    assert thread["values"] == state["values"]
    return thread["values"]["log"], thread["status"]


async def test_of_a_run_that_failed_midway(replica: Replica) -> None:
    sdk = sdk_of(talking_app(replica, agent=steps(one, fail)))
    thread_id = (await sdk.threads.create())["thread_id"]
    await sdk.runs.wait(thread_id, "agent", input=HI, raise_error=False)
    assert await _log(sdk, thread_id) == (["hi", "one"], "error")


async def test_of_a_run_that_was_cancelled_midway(replica: Replica) -> None:
    sdk = sdk_of(talking_app(replica, agent=steps(one, wait_for_ever)))
    thread_id = (await sdk.threads.create())["thread_id"]
    run = await sdk.runs.create(thread_id, "agent", input=HI)

    async def has_begun() -> bool:
        state: Any = await sdk.threads.get_state(thread_id)
        return bool(state["next"] == ["wait_for_ever"])

    await eventually(has_begun)
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert await _log(sdk, thread_id) == (["hi", "one"], "interrupted")
