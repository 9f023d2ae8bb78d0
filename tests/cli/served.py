"""Graphs that the served processes of these tests load."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from deerflow_replica import DeerFlowContext
from deerflow_replica.replica import Replica


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
