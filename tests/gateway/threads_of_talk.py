"""Threads that stopped at a question, seen through the official SDK without a network."""

from __future__ import annotations

from typing import Any

from langgraph_sdk.client import LangGraphClient

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway.graphs import counting_graph
from gateway.serving import by_header, in_process
from runs.saver_graphs import asking_in_a_branch


def talking_app(replica: Replica, *, owned: bool = False, **graphs: Any) -> Any:
    served = {"agent": asking_in_a_branch(), "counting": counting_graph(), **graphs}
    return create_app(replica, served, authenticate=by_header if owned else None)


def sdk_of(app: Any, user: str | None = None) -> LangGraphClient:
    return LangGraphClient(in_process(app, user))


async def asked(sdk: LangGraphClient, **metadata: Any) -> str:
    """A thread whose run waits for an answer inside a subgraph."""
    thread = await sdk.threads.create(metadata=metadata)
    given: dict[str, Any] = {"log": ["hi"]}
    await sdk.runs.wait(thread["thread_id"], "agent", input=given)
    return thread["thread_id"]


async def answered(sdk: LangGraphClient, thread_id: str, *answers: str) -> Any:
    """The last values."""
    values = None
    for answer in answers:
        values = await sdk.runs.wait(thread_id, "agent", command={"resume": answer})
    return values


async def copied(sdk: LangGraphClient, thread_id: str) -> Any:
    """The new thread, which the client's types keep quiet about."""
    threads: Any = sdk.threads
    return await threads.copy(thread_id)
