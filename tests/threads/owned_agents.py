"""Agents with the ownership middleware, whose model does what its script says."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.middleware import ThreadOwnershipMiddleware
from deerflow_replica.threads import ThreadMap

HELLO = {"messages": [("user", "hello")]}


class ScriptedModel(BaseChatModel):
    """Says the scripted messages one after the other; `calls` counts them."""

    script: list[AIMessage]
    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.calls += 1
        answered = sum(isinstance(message, AIMessage) for message in messages)
        return ChatResult(generations=[ChatGeneration(message=self.script[answered % len(self.script)].model_copy())])


@tool
def ask_human(question: str) -> str:
    """Ask."""
    return str(interrupt(question))


@tool
def echo(text: str) -> str:
    """Echo."""
    return text


def says(*tools: str) -> ScriptedModel:
    """A model that calls each tool in turn, and then is done."""
    arguments = {"ask_human": {"question": "sure?"}, "echo": {"text": "hi"}}
    calls = [
        AIMessage("", tool_calls=[{"name": name, "args": arguments[name], "id": f"call-{number}"}])
        for number, name in enumerate(tools)
    ]
    return ScriptedModel(script=[*calls, AIMessage("done")])


class PauseBeforeModel(AgentMiddleware[AgentState[Any], DeerFlowContext, Any]):
    def before_model(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> None:
        interrupt("go on?")


class PauseAfterModel(AgentMiddleware[AgentState[Any], DeerFlowContext, Any]):
    def after_model(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> None:
        interrupt("is it good?")


def agent_of(model: ScriptedModel, threads: ThreadMap, *more: Any, saver: InMemorySaver | None = None) -> Any:
    middleware = [ThreadOwnershipMiddleware(threads), *more]
    return create_agent(
        model, [ask_human, echo], middleware=middleware, context_schema=DeerFlowContext, checkpointer=saver
    )


def context(user_id: str | None = "ann", thread_id: str = "t", **section: Any) -> DeerFlowContext:
    config = AppConfig().evolve({"user_thread_mapping": section}) if section else AppConfig()
    return DeerFlowContext(app_config=config, thread_id=thread_id, user_id=user_id)


def on(thread_id: str = "t") -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}
