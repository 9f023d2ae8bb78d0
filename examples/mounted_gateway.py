"""The gateway inside a web application of your own, under a path of it, asked by the official client.

Needs no server: the stream lives in the process, the rest in memory.
Run it: python examples/mounted_gateway.py (pip install 'deerflow-replica[gateway]' langgraph-sdk)
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langgraph_sdk import get_client
from starlette.applications import Starlette
from starlette.routing import Mount

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica


def make_agent(replica: Replica) -> Any:
    model = FakeListChatModel(responses=["A gateway is an ASGI application like any other."])
    return create_agent(model, middleware=replica.middleware(), context_schema=DeerFlowContext)


config = AppConfig.from_mapping({"database": {"backend": "memory"}})
gateway = create_app(config, {"agent": make_agent}, authenticate=lambda request: request.headers.get("x-user"))
app = Starlette(
    routes=[Mount("/agents", gateway)],  # and yours
    lifespan=gateway.router.lifespan_context,  # nobody calls that of a mounted application, and it opens the replica
)


async def ask(url: str) -> None:
    client = get_client(url=url, headers={"x-user": "ada"})
    thread = await client.threads.create()
    question: Any = {"messages": [{"role": "user", "content": "What is a gateway?"}]}
    async for part in client.runs.stream(thread["thread_id"], "agent", input=question, stream_mode="messages-tuple"):
        print(part.event, part.data[0]["content"] if part.event == "messages" else "")
    await client.aclose()


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve([listener]))
    await ask(f"http://127.0.0.1:{listener.getsockname()[1]}/agents")  # connections wait in the listener meanwhile
    await gateway.state.gateway.drain()  # before the server waits for open responses
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
