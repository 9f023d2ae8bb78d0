"""Runs that go on after an interrupt: `before_agent` does not run again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from deerflow_replica import DeerFlowContext
from deerflow_replica.counters import InMemoryModelCounters
from deerflow_replica.errors import StoreUnavailableError, ThreadOwnershipError
from deerflow_replica.middleware import ModelCounterMiddleware, ThreadOwnershipMiddleware
from deerflow_replica.middleware.ownership import Checked
from deerflow_replica.threads import InMemoryThreadMap
from threads.owned_agents import (
    HELLO,
    PauseAfterModel,
    PauseBeforeModel,
    ScriptedModel,
    agent_of,
    ask_human,
    context,
    echo,
    on,
    says,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> InMemoryThreadMap:
    return InMemoryThreadMap()


@pytest.mark.parametrize("pause", ["tool", "model"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_stranger_cannot_resume(threads: InMemoryThreadMap, pause: str, is_async: bool) -> None:
    model = says("ask_human")
    more = [PauseBeforeModel()] if pause == "model" else []
    agent = agent_of(model, threads, *more, saver=InMemorySaver())

    async def run(given: Any, user_id: str) -> Any:
        if is_async:
            return await agent.ainvoke(given, on(), context=context(user_id))
        return await asyncio.to_thread(agent.invoke, given, on(), context=context(user_id))

    paused = await run(HELLO, "ann")
    assert paused["__interrupt__"]
    calls = model.calls
    with pytest.raises(ThreadOwnershipError):
        await run(Command(resume="yes"), "bob")
    with pytest.raises(ThreadOwnershipError):
        await run(None, "bob")
    assert model.calls == calls
    while "__interrupt__" in paused:
        paused = await run(Command(resume="yes"), "ann")
    assert paused["messages"][-1].content == "done"


@pytest.mark.parametrize("forged", ["checked", {"thread_id": "t", "user_id": "bob"}, True])
async def test_a_resuming_client_cannot_forge_the_mark(threads: InMemoryThreadMap, forged: Any) -> None:
    model = says("ask_human")
    agent = agent_of(model, threads, saver=InMemorySaver())
    await agent.ainvoke(HELLO, on(), context=context())
    command: Command[Any] = Command(resume="yes", update={"thread_ownership": forged})
    with pytest.raises(ThreadOwnershipError):
        await agent.ainvoke(command, on(), context=context("bob"))
    assert model.calls == 1


def test_the_mark_is_for_one_user_and_thread() -> None:
    mark = Checked.of(context("ann"))
    assert mark.covers(context("ann"))
    assert not mark.covers(context("bob"))
    assert not mark.covers(context(None))
    assert not mark.covers(context("ann", thread_id="other"))


async def test_the_mark_is_no_stored_state_and_not_returned(threads: InMemoryThreadMap) -> None:
    saver = InMemorySaver()
    agent = agent_of(says("ask_human", "echo"), threads, saver=saver)
    await agent.ainvoke(HELLO, on(), context=context())
    final = await agent.ainvoke(Command(resume="yes"), on(), context=context())
    assert sorted(final) == ["messages"]
    stored = [saved async for saved in saver.alist(on())]
    assert len(stored) > 5
    assert all("thread_ownership" not in saved.checkpoint["channel_values"] for saved in stored)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_stranger_cannot_resume_behind_the_last_call(threads: InMemoryThreadMap, is_async: bool) -> None:
    """There is no call left that would be checked, and what the run returns is the whole thread."""
    agent = agent_of(says(), threads, PauseAfterModel(), saver=InMemorySaver())

    async def resume(user_id: str | None, **section: Any) -> Any:
        given: Command[Any] = Command(resume="yes")
        if is_async:
            return await agent.ainvoke(given, on(), context=context(user_id, **section))
        return await asyncio.to_thread(agent.invoke, given, on(), context=context(user_id, **section))

    await agent.ainvoke(HELLO, on(), context=context())
    for stranger in ("bob", None):
        with pytest.raises(ThreadOwnershipError):
            await resume(stranger)
    with pytest.raises(ThreadOwnershipError):
        await resume(None, anonymous="deny")
    assert (await resume("ann"))["messages"][-1].content == "done"
    record = await threads.get("t", user_id="ann")
    assert record is not None
    assert record.version == 2


async def test_the_end_of_a_resumed_run_brings_no_thread_back(threads: InMemoryThreadMap) -> None:
    agent = agent_of(says(), threads, PauseAfterModel(), saver=InMemorySaver())
    await agent.ainvoke(HELLO, on(), context=context())
    await threads.delete("t", user_id="ann")
    with pytest.raises(ThreadOwnershipError):
        await agent.ainvoke(Command(resume="yes"), on(), context=context("bob"))
    result = await agent.ainvoke(Command(resume="yes"), on(), context=context())
    assert result["messages"][-1].content == "done"
    assert await threads.owner_of("t") is None


async def test_a_resumed_run_fails_closed(threads: InMemoryThreadMap) -> None:
    agent = agent_of(says(), threads, PauseAfterModel(), saver=InMemorySaver())
    await agent.ainvoke(HELLO, on(), context=context())
    await threads.close()
    with pytest.raises(StoreUnavailableError):
        await agent.ainvoke(Command(resume="yes"), on(), context=context())


@pytest.mark.parametrize("is_first", [True, False])
async def test_calls_side_by_side_and_agents_in_agents(threads: InMemoryThreadMap, is_first: bool) -> None:
    """Two tool calls run an agent each, with the same middlewares and context, while a third one waits for a human."""
    counters = InMemoryModelCounters()

    def built(model: ScriptedModel, *tools: Any, saver: InMemorySaver | None = None) -> Any:
        both = [ThreadOwnershipMiddleware(threads), ModelCounterMiddleware(counters)]
        middleware = both if is_first else both[::-1]
        return create_agent(model, tools, middleware=middleware, context_schema=DeerFlowContext, checkpointer=saver)

    inner = built(says("echo"), echo)

    @tool
    async def delegate(task: str) -> str:
        """Have it done."""
        return str((await inner.ainvoke(HELLO))["messages"][-1].content)

    calls = [{"name": "delegate", "args": {"task": name}, "id": name} for name in ("a", "b")]
    asking = {"name": "ask_human", "args": {"question": "sure?"}, "id": "c"}
    model = ScriptedModel(script=[AIMessage("", tool_calls=[*calls, asking]), AIMessage("done")])
    outer = built(model, delegate, ask_human, saver=InMemorySaver())
    assert (await outer.ainvoke(HELLO, on(), context=context()))["__interrupt__"]
    assert counters.local_totals()["ScriptedModel"].success_count == 5
    with pytest.raises(ThreadOwnershipError):
        await outer.ainvoke(Command(resume="yes"), on(), context=context("bob"))
    result = await outer.ainvoke(Command(resume="yes"), on(), context=context())
    assert [message.content for message in result["messages"]] == ["hello", "", "done", "done", "yes", "done"]
    assert counters.local_totals()["ScriptedModel"].success_count == 6
