"""What the example deployment serves: an agent that needs no key, and who its users are. Put yours in its place."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from starlette.requests import Request

from deerflow_replica import DeerFlowContext
from deerflow_replica.replica import Replica


def make_agent(replica: Replica) -> Any:
    """Called once in a replica, for the agent of all its runs."""
    model = FakeListChatModel(responses=["Any replica answers, and any other one goes on."], sleep=0.05)
    return create_agent(model, middleware=replica.middleware(), context_schema=DeerFlowContext)


def user_of(request: Request) -> str | None:
    """None is 401. Here the user is whoever the proxy in front says: verify a token instead."""
    user: str | None = request.headers.get("x-user")
    return user
