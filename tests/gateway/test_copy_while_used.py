"""A thread that is changed or deleted while it is copied: the saver says when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from deerflow_replica import AppConfig
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.runs.savers.inmemory import InMemoryTables
from deerflow_replica.threads import InMemoryThreadMap
from gateway.serving import IN_MEMORY
from gateway.threads_of_talk import answered, asked, copied, sdk_of, talking_app
from runs.saver_graphs import asking_in_a_branch
from waiting import eventually

pytestmark = pytest.mark.anyio

Meanwhile = Callable[[], Awaitable[object]]


async def _nothing() -> None:
    return None


class CopyingSaver(InMemorySaver):
    """Something happens just before it copies a thread, or just after."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Meanwhile = _nothing
        self.after: Meanwhile = _nothing
        self.was_found_empty = asyncio.Event()

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self.before()
        await InMemoryTables(self).copy_thread(source_thread_id, target_thread_id)
        await self.after()

    async def aget_tuple(self, config: Any) -> Any:
        found = await super().aget_tuple(config)
        if found is None:
            self.was_found_empty.set()
        return found

    def checkpoints(self) -> list[str]:
        spaces = [space for spaces in self.storage.values() for space in spaces.values()]
        return [checkpoint_id for space in spaces for checkpoint_id in space]


class AskedMap(InMemoryThreadMap):
    """Counts how often it was asked whose a thread is."""

    asked = 0

    async def check_access(self, *args: Any, **options: Any) -> bool:
        self.asked += 1
        return await super().check_access(*args, **options)


@pytest.fixture(params=["before", "after"])
def moment(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def saver() -> CopyingSaver:
    return CopyingSaver()


@pytest.fixture
async def threads() -> AsyncIterator[AskedMap]:
    async with AskedMap() as threads:
        yield threads


@pytest.fixture
async def replica(saver: CopyingSaver, threads: AskedMap) -> AsyncIterator[Replica]:
    async with open_replica(AppConfig.from_mapping(IN_MEMORY), checkpointer=saver, threads=threads) as replica:
        yield replica


@pytest.fixture
def sdk(replica: Replica) -> LangGraphClient:
    return sdk_of(talking_app(replica, owned=True), "alice")


Moment = Literal["before", "after"]


async def _shows_its_state(sdk: LangGraphClient, copy: Any) -> None:
    state: Any = await sdk.threads.get_state(copy["thread_id"])
    assert copy["values"] == state["values"]
    assert [one for ones in copy["interrupts"].values() for one in ones] == state["interrupts"]
    assert copy["status"] == ("interrupted" if state["next"] else "idle")


async def test_the_copy_of_a_thread_whose_state_is_changed(
    sdk: LangGraphClient, saver: CopyingSaver, moment: Moment
) -> None:
    source = await asked(sdk)
    setattr(saver, moment, lambda: sdk.threads.update_state(source, {"log": ["other"]}, as_node="done"))
    await _shows_its_state(sdk, await copied(sdk, source))


async def test_the_copy_of_a_thread_whose_row_is_behind_its_state(sdk: LangGraphClient, saver: CopyingSaver) -> None:
    source = await asked(sdk)
    await answered(sdk, source, "Ann", "for fun")
    graph, config = asking_in_a_branch(checkpointer=saver), {"configurable": {"thread_id": source}}
    saver.before = lambda: graph.aupdate_state(config, {"log": ["other"]}, as_node="done")
    copy = await copied(sdk, source)
    await _shows_its_state(sdk, copy)
    assert "other" in copy["values"]["log"]


async def test_the_copy_of_a_thread_whose_run_goes_on(
    sdk: LangGraphClient, saver: CopyingSaver, moment: Moment
) -> None:
    source = await asked(sdk)
    setattr(saver, moment, lambda: answered(sdk, source, "Ann", "for fun"))
    copy = await copied(sdk, source)
    await _shows_its_state(sdk, copy)
    assert ("Ann for fun" in copy["values"]["log"]) == (moment == "before")


async def test_the_copy_of_a_thread_whose_next_run_fails(
    sdk: LangGraphClient, saver: CopyingSaver, moment: Moment
) -> None:
    source = str((await sdk.threads.create())["thread_id"])
    given: dict[str, Any] = {"count": 1}
    await sdk.runs.wait(source, "counting", input=given)
    setattr(saver, moment, lambda: sdk.runs.wait(source, "counting", input={"fail": "!"}, raise_error=False))
    copy = await copied(sdk, source)
    state: Any = await sdk.threads.get_state(copy["thread_id"])
    assert copy["values"] == state["values"]
    assert ("fail" in copy["values"]) == (moment == "before")


async def test_of_a_thread_that_is_deleted_nothing_is_copied(
    replica: Replica, sdk: LangGraphClient, saver: CopyingSaver, moment: Moment
) -> None:
    source = await asked(sdk)
    setattr(saver, moment, lambda: sdk.threads.delete(source))
    with pytest.raises(NotFoundError):
        await copied(sdk, source)
    await _is_empty(replica, saver)


async def test_nothing_is_copied_while_a_thread_is_being_deleted(
    replica: Replica, sdk: LangGraphClient, saver: CopyingSaver, threads: AskedMap
) -> None:
    """Its states go first, its row a little later."""
    source = await asked(sdk)
    saver.before = lambda: saver.adelete_thread(source)
    copying = asyncio.create_task(copied(sdk, source))
    await asyncio.wait_for(saver.was_found_empty.wait(), 10)
    before = threads.asked
    await eventually(lambda: threads.asked >= before + 2, what="a second look at the thread")
    await sdk.threads.delete(source)
    with pytest.raises(NotFoundError):
        await copying
    await _is_empty(replica, saver)


async def _is_empty(replica: Replica, saver: CopyingSaver) -> None:
    assert saver.checkpoints() == []
    assert not saver.blobs
    assert not saver.writes
    assert await replica.runs.search_threads() == ()
    assert (await replica.threads.list("alice")).items == ()
