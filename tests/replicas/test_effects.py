"""When a changed value takes effect, through one agent that is never rebuilt: what `takes_effect` says is true."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.runtime import Runtime
from pydantic import PrivateAttr

from deerflow_replica import AppConfig, DeerFlowContext, Replica, open_replica, resolve_context
from deerflow_replica.errors import ThreadOwnershipError

pytestmark = pytest.mark.anyio
DOCUMENT = {"user": {"workContext": {"summary": "builds very long bridges over rivers", "updatedAt": ""}}, "facts": []}


class Listener(BaseChatModel):
    """Answers "ok" and keeps the text it was shown last."""

    _shown: list[str] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "listener"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self._shown.append(" ".join(str(message.content) for message in messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage("ok"))])


class TitleReader(AgentMiddleware[AgentState[Any], DeerFlowContext]):
    """A middleware of one's own, which reads its section as ours read theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[int] = []

    def before_agent(self, state: Any, runtime: Runtime[DeerFlowContext]) -> None:
        self.words.append(resolve_context(runtime).app_config.title.max_words)

    async def abefore_agent(self, state: Any, runtime: Runtime[DeerFlowContext]) -> None:
        self.before_agent(state, runtime)


class Seen(NamedTuple):
    """What a run of nobody and a run on another's thread came to."""

    shown: str
    owner: str | None
    words: int
    error: str
    foreign_error: str
    counted: int


@dataclass
class Subject:
    """One replica, one agent, built once."""

    replica: Replica
    agent: Any
    model: Listener
    reader: TitleReader
    names: Iterator[int]

    async def see(self, config: AppConfig, how: str) -> Seen:
        thread, foreign = f"t{next(self.names)}", f"f{next(self.names)}"
        await self.replica.threads.claim(foreign, "owner")
        self.model._shown[:] = [""]
        before = await self.calls()
        error = await self.run(config, how, thread, None)
        shown = self.model._shown[-1]
        foreign_error = await self.run(config, how, foreign, "somebody")
        owner = await self.replica.threads.owner_of(thread)
        return Seen(shown, owner, self.reader.words[-1], error, foreign_error, await self.calls() - before)

    async def run(self, config: AppConfig, how: str, thread: str, user_id: str | None) -> str:
        given, context = {"messages": ["hello"]}, DeerFlowContext(config, thread, user_id=user_id)
        try:
            if how == "sync":
                await asyncio.to_thread(self.agent.invoke, given, context=context)
            else:
                await self.agent.ainvoke(given, context=context)
        except ThreadOwnershipError:
            return "refused"
        return "ran"

    async def calls(self) -> int:
        await self.replica.counters.flush()
        return sum(total.call_count for total in (await self.replica.counters.totals()).values())


@pytest.fixture
def config(tmp_path: Path) -> AppConfig:
    return AppConfig.from_mapping(
        {"database": {"backend": "memory"}, "memory": {"backend_config": {"storage_path": str(tmp_path / "memory")}}},
        env={},
    )


@pytest.fixture
async def subject(config: AppConfig) -> AsyncIterator[Subject]:
    async with open_replica(config) as replica:
        replica.memory.save(DOCUMENT)
        replica.memory.save(DOCUMENT, user_id="helper")
        model, reader = Listener(), TitleReader()
        agent = create_agent(model, middleware=replica.middleware([reader]), context_schema=DeerFlowContext)
        yield Subject(replica, agent, model, reader, itertools.count())


NEXT_RUN: dict[str, dict[str, Any]] = {
    "memory.enabled": {"memory": {"enabled": False}},
    "memory.mode": {"memory": {"mode": "tool"}},
    "memory.injection_enabled": {"memory": {"injection_enabled": False}},
    "memory.backend_config.max_injection_tokens": {"memory": {"backend_config": {"max_injection_tokens": 5}}},
    "title.max_words": {"title": {"max_words": 3}},
    "user_thread_mapping.enabled": {"user_thread_mapping": {"enabled": False}},
    "user_thread_mapping.anonymous": {"user_thread_mapping": {"anonymous": "deny"}},
    "user_thread_mapping.anonymous_user_id": {
        "user_thread_mapping": {"anonymous": "user", "anonymous_user_id": "helper"}
    },
}
OTHERS: dict[str, dict[str, Any]] = {
    "model_feedback.enabled": {"model_feedback": {"enabled": False}},
    "memory.backend_config.storage_path": {"memory": {"backend_config": {"storage_path": "/elsewhere"}}},
    "memory.storage": {"memory": {"storage": "store"}},
    "user_thread_mapping.tenant": {"user_thread_mapping": {"tenant": "other"}},
    "log_level": {"log_level": "debug"},
}


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("key", NEXT_RUN)
async def test_a_runtime_value_changes_the_next_run_in_both_directions(
    subject: Subject, config: AppConfig, key: str, how: str
) -> None:
    changed = config.evolve(NEXT_RUN[key])
    assert changed.explain(key).takes_effect == "next-run"
    first = await subject.see(config, how)
    assert "builds very long bridges" in first.shown
    assert first[1:] == (None, 6, "ran", "refused", 1)
    second = await subject.see(changed, how)
    assert second != first
    assert await subject.see(config, how) == first
    assert await subject.see(changed, how) == second


@pytest.mark.parametrize("key", OTHERS)
async def test_a_structural_value_changes_nothing_until_it_is_built_in(
    subject: Subject, config: AppConfig, key: str
) -> None:
    changed = config.evolve(OTHERS[key])
    assert changed.explain(key).takes_effect in ("rebuild", "restart")
    assert await subject.see(changed, "async") == await subject.see(config, "async")


async def test_a_rebuild_is_enough_where_it_says_rebuild(subject: Subject, config: AppConfig) -> None:
    changed = config.evolve(OTHERS["model_feedback.enabled"])
    async with open_replica(changed, counters=subject.replica.counters, threads=subject.replica.threads) as replica:
        model = Listener()
        agent: Any = create_agent(model, middleware=replica.middleware(), context_schema=DeerFlowContext)
        before = await subject.calls()
        await agent.ainvoke({"messages": ["hello"]}, context=DeerFlowContext(changed, "t"))
        assert await subject.calls() == before
