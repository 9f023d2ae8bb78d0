"""Graphs and agents for the tests of runs."""

from __future__ import annotations

import asyncio
import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    seen: str


class Model(GenericFakeChatModel):
    """A chat model with scripted answers, streamed word by word; one that calls tools comes in one piece."""

    def _stream(self, messages: Any, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        answer = self._generate(messages).generations[0].message
        assert isinstance(answer, AIMessage)
        calls = [
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"])
            for call in answer.tool_calls
        ]
        words = [answer.text] if calls else re.split(r"(\s)", answer.text)
        for word in words:
            chunk = AIMessageChunk(content=word, id=answer.id, tool_call_chunks=calls)
            yield ChatGenerationChunk(message=chunk)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Model:
        return self


def scripted(*answers: AIMessage | str) -> Model:
    def endless() -> Iterator[AIMessage]:
        while True:
            for answer in answers:
                yield answer.model_copy(update={"id": None}) if isinstance(answer, AIMessage) else AIMessage(answer)

    return Model(messages=endless())


def agent(*answers: AIMessage | str, tools: Sequence[BaseTool | Callable[..., Any]] = (), **options: Any) -> Any:
    return create_agent(scripted(*answers), list(tools), **options)


def steps(*nodes: Callable[..., Any], **options: Any) -> Any:
    """The nodes one after the other, under their own names."""
    builder = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile(**options)


def one(state: State) -> State:
    get_stream_writer()({"progress": 1})
    return {"log": ["one"]}


def two(state: State) -> State:
    return {"log": ["two"]}


def ask(state: State) -> State:
    return {"log": [f"answered {interrupt({'question': 'go on?'})}"]}


def fail(state: State) -> State:
    raise ValueError("no such luck")


async def wait_for_ever(state: State) -> State:
    await asyncio.Event().wait()
    return {"log": ["never"]}


def who(state: State, config: RunnableConfig) -> State:
    return {"seen": config.get("configurable", {})["run_id"]}
