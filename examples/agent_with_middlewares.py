"""An agent that owns its threads, remembers its user and counts its model calls. Runs alone: no server, no key."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.counters import InMemoryModelCounters
from deerflow_replica.errors import ThreadOwnershipError
from deerflow_replica.memory import FileMemoryStorage
from deerflow_replica.middleware import MemoryMiddleware, ModelCounterMiddleware, ThreadOwnershipMiddleware
from deerflow_replica.threads import InMemoryThreadMap


class ParrotModel(BaseChatModel):
    """Says how much it was told; put your chat model in its place."""

    @property
    def _llm_type(self) -> str:
        return "parrot"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        answer = AIMessage(f"I was told: {' | '.join(message.text for message in messages)}")
        answer.usage_metadata = {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
        return ChatResult(generations=[ChatGeneration(message=answer)])


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        memory = FileMemoryStorage(folder)
        memory.save({"facts": [{"id": "1", "content": "prefers short answers", "confidence": 0.9}]}, user_id="ann")
        async with InMemoryThreadMap() as threads, InMemoryModelCounters() as counters:
            middleware = [
                ThreadOwnershipMiddleware(threads),
                MemoryMiddleware(memory),
                ModelCounterMiddleware(counters),
            ]
            agent = create_agent(ParrotModel(), middleware=middleware, context_schema=DeerFlowContext)
            hello: Any = {"messages": [HumanMessage("Hello!")]}
            ann = DeerFlowContext(AppConfig(), thread_id="thread-1", user_id="ann")
            print((await agent.ainvoke(hello, context=ann))["messages"][-1].text)
            print("thread-1 belongs to", await threads.owner_of("thread-1"))
            try:
                await agent.ainvoke(hello, context=DeerFlowContext(AppConfig(), thread_id="thread-1", user_id="bob"))
            except ThreadOwnershipError as refused:
                print("bob is refused:", refused)
            for name, total in (await counters.totals()).items():
                print(f"{name}: {total.call_count} call(s), {total.total_tokens} tokens")


if __name__ == "__main__":
    asyncio.run(main())
