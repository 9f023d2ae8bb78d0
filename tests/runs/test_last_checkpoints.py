"""A run that is over stores nothing any more, however slow its saver is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver

from deerflow_replica.runs.checkpoints import delete_run_checkpoints
from deerflow_replica.runs.fencing import fenced_saver
from deerflow_replica.runs.gate import Gate
from runs.test_checkpoints import content

pytestmark = pytest.mark.anyio


class SlowSaver(InMemorySaver):
    """It stores as soon as it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_store = asyncio.Event()

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        await self.may_store.wait()
        return await super().aput(config, checkpoint, metadata, new_versions)


async def test_checkpoints_that_a_stopped_graph_still_stores_are_taken_back_too() -> None:
    saver = SlowSaver()
    own = fenced_saver(saver, lambda: None)
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    async def put(*before: asyncio.Task[None]) -> None:
        await asyncio.gather(*before)
        await own.aput(config, empty_checkpoint(), {"run_id": "r1"}, {})

    first = asyncio.create_task(put())
    second = asyncio.create_task(put(first))
    deleting = asyncio.create_task(delete_run_checkpoints(own, "t", "r1", before=None))
    await asyncio.sleep(0)
    assert not deleting.done()
    saver.may_store.set()
    await deleting
    late = asyncio.create_task(put(second))
    await asyncio.wait([late])
    assert late.cancelled()
    assert [second.done(), second.cancelled()] == [True, False]
    assert await content(saver) == []


async def test_a_gate_lets_those_inside_finish_and_those_right_behind_them() -> None:
    gate, order = Gate(), list[str]()
    first_may_go = asyncio.Event()

    async def first() -> None:
        with gate.passing():
            await first_may_go.wait()
            order.append("first")

    async def second(before: asyncio.Task[None]) -> None:
        await before
        with gate.passing():
            await asyncio.sleep(0)
            order.append("second")

    one = asyncio.create_task(first())
    two = asyncio.create_task(second(one))
    await asyncio.sleep(0)
    closing = asyncio.create_task(gate.close())
    await asyncio.sleep(0)
    assert not closing.done()
    first_may_go.set()
    await closing
    assert order == ["first", "second"]
    await two
    with pytest.raises(asyncio.CancelledError), gate.passing():
        order.append("late")
    await gate.close()
    assert order == ["first", "second"]
