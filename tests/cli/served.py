"""Graphs that the served processes of these tests load."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from deerflow_replica import DeerFlowContext
from deerflow_replica.replica import Replica

number = 5


class Nap(TypedDict):
    seconds: float


uncompiled = StateGraph(Nap)


def make_nap() -> Any:
    async def nap(state: Nap) -> Nap:
        await asyncio.sleep(state["seconds"])
        return state

    graph = StateGraph(Nap)
    graph.add_node("nap", nap)
    graph.add_edge(START, "nap")
    graph.add_edge("nap", END)
    return graph.compile()


class Echo(TypedDict):
    text: str


def make_echo(replica: Replica) -> Any:
    def echo(state: Echo) -> Echo:
        return {"text": f"{state['text']} from {replica.replica_id}"}

    graph = StateGraph(Echo, context_schema=DeerFlowContext)
    graph.add_node("echo", echo)
    graph.add_edge(START, "echo")
    graph.add_edge("echo", END)
    return graph.compile()
