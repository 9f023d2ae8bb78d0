"""Graphs that LangGraph's own server loads from this file, too: nothing of ours is imported."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    messages: Annotated[list[AnyMessage], add_messages]


def _one(state: State) -> State:
    get_stream_writer()({"progress": 1})
    return {"log": ["one"]}


def _two(state: State) -> State:
    return {"log": ["two"]}


def _ask(state: State) -> State:
    return {"log": [f"answered {interrupt('go on?')}"]}


def _fail(state: State) -> State:
    raise ValueError("no such luck")


async def _talk(state: State) -> State:
    model = GenericFakeChatModel(messages=iter([AIMessage("hello wide world")]))
    return {"messages": [await model.ainvoke("hi")]}


def _nest(state: State) -> State:
    return {"log": _steps(_two).invoke({})["log"]}


def _steps(*nodes: Any) -> Any:
    builder = StateGraph(State)
    names = [node.__name__.strip("_") for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile()


steps = _steps(_one, _two)
asking = _steps(_one, _ask)
failing = _steps(_one, _fail)
talking = _steps(_talk)
nesting = _steps(_one, _nest)
