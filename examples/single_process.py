"""One process, no server: an agent's run in the background, its events as they come.

Run it: python examples/single_process.py
"""

from __future__ import annotations

import asyncio

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from deerflow_replica import AppConfig, DeerFlowContext, StreamEvent, open_replica


async def main() -> None:
    config = AppConfig.from_mapping({"database": {"backend": "memory"}})  # AppConfig() keeps everything in files
    model = GenericFakeChatModel(messages=iter([AIMessage("One replica is enough for a start.")]))
    async with open_replica(config) as replica:
        agent = create_agent(
            model,
            middleware=replica.middleware(),
            context_schema=DeerFlowContext,
            store=replica.store,
            checkpointer=replica.checkpointer,
        )
        question = {"messages": [{"role": "user", "content": "How many replicas do I need?"}]}
        run = await replica.start_run(
            agent, question, thread_id="t1", user_id="ada", stream_mode=["messages-tuple", "values"]
        )
        async for item in replica.bridge.subscribe(run.run_id):
            match item:
                case StreamEvent(event="messages", data=[chunk, _]):
                    print(chunk["content"], end="", flush=True)
                case StreamEvent(event="values", id=event_id, data=state):
                    print(f"\n[{event_id}] {len(state['messages'])} messages")
        print("run", await run.wait(), "on", replica.replica_id)
        print("threads of ada:", [thread.thread_id for thread in (await replica.threads.list("ada")).items])


if __name__ == "__main__":
    asyncio.run(main())
