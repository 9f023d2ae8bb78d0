"""The demo's agent: a scripted chat model with a tool, and the replica's own middlewares.

The user's message is the script, as JSON: `{"fact": "...", "words": 40}`. The model first calls `remember` with the
fact, then answers in so many words, one at a time. It keeps no state, so any replica can play any part of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypedDict

from langchain.agents import create_agent
from langchain.tools import ToolRuntime, tool
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from ...context import DeerFlowContext, resolve_context
from ...memory import MemoryStorage
from ...replica import Replica

MODEL_NAME = "scripted"
WORD_SECONDS = 0.025


class ScriptedChatModel(BaseChatModel):
    """Plays the script in the last human message. No key, no network."""

    name: str | None = MODEL_NAME

    @property
    def _llm_type(self) -> str:
        return MODEL_NAME

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedChatModel:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=_answer(messages))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(_answer(messages)):
            await asyncio.sleep(WORD_SECONDS)
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk


class ReportState(TypedDict, total=False):
    """What the fleet knows, as the replica that answers sees it."""

    replica_id: str
    model_calls: int
    facts: list[str]


def make_agent(replica: Replica) -> Any:
    """The agent, built as any user of the package builds one."""
    return create_agent(
        ScriptedChatModel(),
        [_remember_tool(replica.memory)],
        middleware=replica.middleware(),
        context_schema=DeerFlowContext,
    )


def make_report(replica: Replica) -> Any:
    """A graph of one node that reads the shared counters and the user's shared memory."""

    async def report(state: ReportState, runtime: Runtime[DeerFlowContext]) -> ReportState:
        totals = await replica.counters.totals()
        user_id = resolve_context(runtime).user_id
        document = await asyncio.to_thread(replica.memory.load, user_id=user_id)
        return {
            "replica_id": replica.replica_id,
            "model_calls": totals[MODEL_NAME].call_count if MODEL_NAME in totals else 0,
            "facts": sorted(str(fact["content"]) for fact in document["facts"]),
        }

    graph = StateGraph(ReportState, context_schema=DeerFlowContext)
    graph.add_node("report", report)
    graph.add_edge(START, "report")
    graph.add_edge("report", END)
    return graph.compile()


def authenticate(request: Any) -> str | None:
    """The demo trusts a header. Yours would check a token."""
    user_id: str | None = request.headers.get("x-demo-user")
    return user_id


def script(fact: str, words: int) -> dict[str, Any]:
    """The graph input that makes the model remember a fact and then talk."""
    return {"messages": [{"role": "user", "content": json.dumps({"fact": fact, "words": words})}]}


def _remember_tool(memory: MemoryStorage) -> BaseTool:
    @tool
    async def remember(fact: str, runtime: ToolRuntime[DeerFlowContext]) -> str:
        """Keep a fact about the user."""
        await asyncio.to_thread(_add_fact, memory, fact, resolve_context(runtime).user_id)
        return "kept"

    return remember


def _add_fact(memory: MemoryStorage, fact: str, user_id: str | None) -> None:
    document = memory.load(user_id=user_id)
    document["facts"].append({"id": f"fact-{fact}", "content": fact, "confidence": 1.0})
    if not memory.save(document, user_id=user_id):
        raise RuntimeError("the fact could not be saved")


def _answer(messages: list[BaseMessage]) -> AIMessage:
    asked = max(index for index, message in enumerate(messages) if isinstance(message, HumanMessage))
    plan = json.loads(str(messages[asked].content))
    if any(isinstance(message, ToolMessage) for message in messages[asked:]):
        return AIMessage(content=" ".join(f"word-{number}" for number in range(plan["words"])))
    call = {"name": "remember", "args": {"fact": plan["fact"]}, "id": f"call-{asked}", "type": "tool_call"}
    return AIMessage(content="", tool_calls=[call])


def _chunks(answer: AIMessage) -> Iterator[ChatGenerationChunk]:
    if answer.tool_calls:
        (call,) = answer.tool_calls
        piece = tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=0)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[piece]))
        return
    for word in str(answer.content).split(" "):
        yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))
