"""Graphs whose checkpoints are looked at: subgraphs, interrupts, branches."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


class Notes(TypedDict, total=False):
    """What was done, in order."""

    log: Annotated[list[str], operator.add]


def _plan(state: Notes) -> Notes:
    return {"log": ["planned"]}


def _ask(state: Notes) -> Notes:
    first = interrupt("who?")
    return {"log": [f"{first} {interrupt('why?')}"]}


def _look(state: Notes) -> Notes:
    return {"log": ["looked"]}


def _done(state: Notes) -> Notes:
    return {"log": ["done"]}


def asking_in_a_branch(**options: Any) -> Any:
    """`plan`, then at once `look` and the subgraph `talk`, which asks twice in one node, then `done`."""
    inner = StateGraph(Notes)
    inner.add_node("ask", _ask)
    inner.add_edge(START, "ask")
    inner.add_edge("ask", END)
    outer = StateGraph(Notes)
    outer.add_node("plan", _plan)
    outer.add_node("look", _look)
    outer.add_node("talk", inner.compile())
    outer.add_node("done", _done)
    outer.add_edge(START, "plan")
    outer.add_edge("plan", "look")
    outer.add_edge("plan", "talk")
    outer.add_edge(["look", "talk"], "done")
    outer.add_edge("done", END)
    return outer.compile(**options)
