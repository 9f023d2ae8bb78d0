"""The graph that both servers run. It imports nothing of ours: the reference server loads this file, too."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph


class Count(TypedDict, total=False):
    """Say `count` numbers, one every `pause` seconds, each with the moment at which it was said."""

    count: int
    pause: float


async def _count(state: Count) -> Count:
    write = get_stream_writer()
    pause, begun = state.get("pause", 0.0), monotonic()
    for number in range(state.get("count", 0)):
        await asyncio.sleep(max(0.0, begun + number * pause - monotonic()) if pause else 0)
        write({"n": number, "t": monotonic()})
    return {}


_builder = StateGraph(Count)
_builder.add_node("count", _count)
_builder.add_edge(START, "count")
_builder.add_edge("count", END)
graph = _builder.compile()
