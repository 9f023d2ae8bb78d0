"""Graphs that do what their input says."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


class CountState(TypedDict, total=False):
    """Count to `count`, pausing `pause` seconds after each; then fail if `fail` says with what."""

    count: int
    pause: float
    fail: str
    total: int


async def _count(state: CountState) -> CountState:
    writer = get_stream_writer()
    pause, fail = state.get("pause"), state.get("fail")
    for number in range(state.get("count", 0)):
        writer({"n": number})
        if pause:
            await asyncio.sleep(pause)
    if fail:
        raise RuntimeError(fail)
    return {"total": state.get("count", 0)}


def counting_graph() -> Any:
    builder = StateGraph(CountState)
    builder.add_node("count", _count)
    builder.add_edge(START, "count")
    builder.add_edge("count", END)
    return builder.compile()


class AskState(TypedDict, total=False):
    answer: str


def _ask(state: AskState) -> AskState:
    return {"answer": interrupt("what?")}


def asking_graph() -> Any:
    """Stops at an interrupt until it is resumed with the answer."""
    builder = StateGraph(AskState)
    builder.add_node("ask", _ask)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile()
