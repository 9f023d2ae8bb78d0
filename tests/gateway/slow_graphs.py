"""Graphs that take their time, in steps and in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph

WORDS = tuple(f"word{number} " for number in range(40))
PAUSE_SECONDS = 0.03


class StepState(TypedDict, total=False):
    """Do `steps` steps of `pause` seconds; `done` counts them."""

    steps: int
    pause: float
    done: int


async def _step(state: StepState) -> StepState:
    done = state.get("done", 0)
    get_stream_writer()({"n": done})
    await asyncio.sleep(state.get("pause", 0))
    return {"done": done + 1}


def _next(state: StepState) -> str:
    return "step" if state.get("done", 0) < state.get("steps", 0) else END


def stepping_graph() -> Any:
    """A checkpoint after each step."""
    builder = StateGraph(StepState)
    builder.add_node("step", _step)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", _next, ["step", END])
    return builder.compile()


class _Talker(BaseChatModel):
    """Says its words one after the other, whatever it is asked."""

    @property
    def _llm_type(self) -> str:
        return "talker"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(WORDS)))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for word in WORDS:
            await asyncio.sleep(PAUSE_SECONDS)
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


async def _talk(state: MessagesState) -> Any:
    return {"messages": [await _Talker().ainvoke(state["messages"])]}


def chat_graph() -> Any:
    """Answers with the same words each time, a little more than a second long."""
    builder = StateGraph(MessagesState)
    builder.add_node("talk", _talk)
    builder.add_edge(START, "talk")
    builder.add_edge("talk", END)
    return builder.compile()
