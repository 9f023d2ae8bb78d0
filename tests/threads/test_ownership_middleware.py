"""ThreadOwnershipMiddleware in real agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware, AgentState
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import Runtime

from deerflow_replica import DeerFlowContext
from deerflow_replica.errors import ContextError, StoreUnavailableError, ThreadOwnershipError
from deerflow_replica.threads import InMemoryThreadMap, SqliteThreadMap, ThreadMap
from threads.owned_agents import HELLO, agent_of, context, on, says

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> InMemoryThreadMap:
    return InMemoryThreadMap()


async def test_a_run_claims_and_touches(threads: InMemoryThreadMap) -> None:
    agent = agent_of(says("echo"), threads)
    await agent.ainvoke(HELLO, context=context())
    record = await threads.get("t", user_id="ann")
    assert record is not None
    assert record.version == 2
    assert record.updated_at > record.created_at


def test_a_sync_run_claims_and_touches(threads: InMemoryThreadMap) -> None:
    agent_of(says("echo"), threads).invoke(HELLO, context=context())
    record = threads.runner.call(threads.get("t", user_id="ann"))
    assert record is not None
    assert record.version == 2


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_stranger_is_refused_before_any_model_call(threads: InMemoryThreadMap, is_deleted: bool) -> None:
    await threads.claim("t", "the owner's name")
    if is_deleted:
        await threads.delete("t", user_id="the owner's name")
    model = says()
    agent = agent_of(model, threads)
    refusals = []
    for run in (
        agent.ainvoke(HELLO, context=context("bob")),
        asyncio.to_thread(agent.invoke, HELLO, context=context("bob")),
    ):
        with pytest.raises(ThreadOwnershipError) as refused:
            await run
        refusals.append(refused.value)
    assert model.calls == 0
    for error in refusals:
        assert error.thread_id == "t"
        assert "owner's" not in f"{error} {error!r} {vars(error)} {error.__cause__} {error.__context__}"
        assert str(error) == str(ThreadOwnershipError("t"))


async def test_a_transfer_counts_at_once(threads: InMemoryThreadMap) -> None:
    agent = agent_of(says(), threads)
    await agent.ainvoke(HELLO, context=context())
    await threads.transfer("t", "ann", "bob")
    await agent.ainvoke(HELLO, context=context("bob"))
    with pytest.raises(ThreadOwnershipError):
        await agent.ainvoke(HELLO, context=context())


async def test_a_run_is_checked_once(threads: InMemoryThreadMap) -> None:
    """Not again with each call of the run that was checked at its start: the owner changes in mid-run."""

    class Thief(AgentMiddleware[AgentState[Any], DeerFlowContext, Any]):
        async def abefore_model(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> None:
            await threads.transfer("t", "ann", "bob")

    result = await agent_of(says("echo"), threads, Thief()).ainvoke(HELLO, context=context())
    assert result["messages"][-1].content == "done"


async def test_a_thread_that_goes_meanwhile_fails_no_run(threads: InMemoryThreadMap) -> None:
    class Remover(AgentMiddleware[AgentState[Any], DeerFlowContext, Any]):
        async def abefore_model(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> None:
            await threads.delete("t", user_id="ann")

    result = await agent_of(says("echo"), threads, Remover()).ainvoke(HELLO, context=context())
    assert result["messages"][-1].content == "done"
    assert await threads.owner_of("t") is None


async def test_checkpoints_on_another_thread(threads: InMemoryThreadMap) -> None:
    agent = agent_of(says(), threads, saver=InMemorySaver())
    with pytest.raises(ContextError, match="thread_id"):
        await agent.ainvoke(HELLO, on("mine"), context=context(thread_id="other"))
    assert await threads.owners_of(["mine", "other"]) == {}


async def test_a_closed_store_refuses(threads: InMemoryThreadMap) -> None:
    model = says()
    await threads.close()
    with pytest.raises(StoreUnavailableError):
        await agent_of(model, threads).ainvoke(HELLO, context=context())
    assert model.calls == 0


class CloseAfterModel(AgentMiddleware[AgentState[Any], DeerFlowContext, Any]):
    """The store goes away while the agent runs."""

    def __init__(self, threads: ThreadMap) -> None:
        super().__init__()
        self.tools = []
        self._threads = threads

    def after_model(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> None:
        self._threads.runner.call(self._threads.close())

    async def aafter_model(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> None:
        await self._threads.close()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_run_that_is_done_does_not_fail_for_its_touch(
    threads: InMemoryThreadMap, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_of(says(), threads, CloseAfterModel(threads))
    if is_async:
        result = await agent.ainvoke(HELLO, context=context())
    else:
        result = await asyncio.to_thread(agent.invoke, HELLO, context=context())
    assert result["messages"][-1].content == "done"
    [warning] = caplog.records
    assert warning.levelname == "WARNING"
    assert warning.getMessage() == "thread 't' was not touched after its run: the thread map is closed"
    with pytest.raises(StoreUnavailableError):
        await agent.ainvoke(HELLO, context=context())


async def test_no_context(threads: InMemoryThreadMap) -> None:
    with pytest.raises(ContextError):
        await agent_of(says(), threads).ainvoke(HELLO)


async def test_configuration_is_read_by_each_run(threads: InMemoryThreadMap) -> None:
    agent = agent_of(says("echo"), threads)
    await threads.claim("t", "bob")
    with pytest.raises(ThreadOwnershipError):
        await agent.ainvoke(HELLO, context=context())
    await agent.ainvoke(HELLO, context=context(enabled=False))
    with pytest.raises(ThreadOwnershipError):
        await agent.ainvoke(HELLO, context=context())
    record = await threads.get("t", user_id="bob")
    assert record is not None
    assert record.version == 1


@pytest.fixture(params=["none", "live", "tombstone"])
def state_of_thread(request: pytest.FixtureRequest, threads: InMemoryThreadMap) -> str:
    if request.param != "none":
        threads.runner.call(threads.claim("t", "ann"))
    if request.param == "tombstone":
        threads.runner.call(threads.delete("t", user_id="ann"))
    return str(request.param)


@pytest.mark.parametrize("anonymous", ["open", "user", "deny"])
async def test_anonymous_runs(threads: InMemoryThreadMap, state_of_thread: str, anonymous: str) -> None:
    run = agent_of(says("echo"), threads).ainvoke(HELLO, context=context(None, anonymous=anonymous))
    if state_of_thread == "none" and anonymous != "deny":
        await run
        assert await threads.owner_of("t") == ("default" if anonymous == "user" else None)
    else:
        with pytest.raises(ThreadOwnershipError):
            await run


async def test_anonymous_users_come_back(threads: InMemoryThreadMap) -> None:
    agent = agent_of(says(), threads)
    guest = context(None, anonymous="user", anonymous_user_id="guest")
    await agent.ainvoke(HELLO, context=guest)
    await agent.ainvoke(HELLO, context=guest)
    record = await threads.get("t", user_id="guest")
    assert record is not None
    assert record.version == 3


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[], SqliteThreadMap]:
    return lambda: SqliteThreadMap(tmp_path / "threads.db")


async def test_a_sync_agent_on_the_loop_that_opened_the_map(on_disk: Callable[[], SqliteThreadMap]) -> None:
    async with on_disk() as threads:
        agent = agent_of(says("echo"), threads)
        agent.invoke(HELLO, context=context())
        with pytest.raises(ThreadOwnershipError):
            agent.invoke(HELLO, context=context("bob"))
        await agent.ainvoke(HELLO, context=context())
        assert await threads.owner_of("t") == "ann"


async def test_many_runs_at_once(threads: InMemoryThreadMap) -> None:
    agent = agent_of(says("echo"), threads)
    runs = (agent.ainvoke(HELLO, context=context(f"u{n % 2}", f"t{n % 2}")) for n in range(20))
    await asyncio.gather(*runs)
    assert await threads.owners_of(["t0", "t1"]) == {"t0": "u0", "t1": "u1"}
