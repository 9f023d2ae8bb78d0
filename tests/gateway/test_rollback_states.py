"""A run that is rolled back leaves its thread exactly as it was: state, head, history, questions and status."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from langgraph_sdk.client import LangGraphClient

from deerflow_replica.replica import Replica
from gateway.threads_of_talk import sdk_of, talking_app
from runs.saver_graphs import Notes
from waiting import eventually

pytestmark = pytest.mark.anyio


def _ask(state: Notes) -> Notes:
    return {"log": [interrupt("who?")]}


async def _wait(state: Notes) -> Notes:
    if state.get("log", [""])[-1] == "stay":
        await asyncio.Event().wait()
    return {"log": ["waited"]}


def _asking_and_waiting() -> Any:
    inner = StateGraph(Notes)
    inner.add_node("ask", _ask)
    inner.add_node("wait", _wait)
    inner.add_edge(START, "ask")
    inner.add_edge("ask", "wait")
    inner.add_edge("wait", END)
    outer = StateGraph(Notes)
    outer.add_node("talk", inner.compile())
    outer.add_edge(START, "talk")
    outer.add_edge("talk", END)
    return outer.compile()


async def _seen(sdk: LangGraphClient, thread_id: str) -> Any:
    thread: Any = await sdk.threads.get(thread_id)
    shown = {key: thread[key] for key in ("status", "values", "interrupts", "error", "metadata")}
    state = await sdk.threads.get_state(thread_id, subgraphs=True)
    runs = [run["run_id"] for run in await sdk.runs.list(thread_id)]
    return shown, state, await sdk.threads.get_history(thread_id), runs


async def _is_waiting(sdk: LangGraphClient, thread_id: str) -> bool:
    state: Any = await sdk.threads.get_state(thread_id, subgraphs=True)
    return any(task["state"] and task["state"]["next"] == ["wait"] for task in state["tasks"])


@pytest.mark.parametrize("by", ["action", "strategy"])
async def test_an_answer_that_is_rolled_back_was_never_given(replica: Replica, by: str) -> None:
    sdk = sdk_of(talking_app(replica, agent=_asking_and_waiting()))
    thread_id = (await sdk.threads.create())["thread_id"]
    hi: Any = {"log": ["hi"]}
    await sdk.runs.wait(thread_id, "agent", input=hi)
    before = await _seen(sdk, thread_id)
    assert before[0]["status"] == "interrupted"

    run = await sdk.runs.create(thread_id, "agent", command={"resume": "stay"})
    await eventually(lambda: _is_waiting(sdk, thread_id), what="the answer to be taken")
    if by == "action":
        await sdk.runs.cancel(thread_id, run["run_id"], wait=True, action="rollback")
        assert await _seen(sdk, thread_id) == before
    values: Any = await sdk.runs.wait(
        thread_id, "agent", command={"resume": "go"}, multitask_strategy="rollback" if by == "strategy" else None
    )
    assert values["log"] == ["hi", "hi", "go", "waited"]
    history: Any = await sdk.threads.get_history(thread_id)
    assert history[-len(before[2]) + 1 :] == before[2][1:]
    assert run["run_id"] not in [state["metadata"].get("run_id") for state in history]
