"""Taking back the checkpoints of a run, and copying those of a thread, on every saver."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph import channels
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from deerflow_replica.errors import StoreUnavailableError
from deerflow_replica.runs.checkpoints import copy_thread, delete_run_checkpoints
from deerflow_replica.runs.fencing import fenced_saver
from runs.saver_graphs import asking_in_a_branch
from runs.savers import CapableSaver, PlainSaver, Saver, postgres_saver, sqlite_saver

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["inmemory", "sqlite", "postgres"])
async def saver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Saver]:
    match request.param:
        case "sqlite":
            async with sqlite_saver(tmp_path) as opened:
                yield opened
        case "postgres":
            schema = request.getfixturevalue("postgres_schema")
            async with postgres_saver(request.getfixturevalue("postgres_dsn"), schema) as opened:
                yield opened
        case _:
            yield InMemorySaver()


def at(thread_id: str, run_id: str | None = None, **more: Any) -> Any:
    ids = {} if run_id is None else {"run_id": run_id}
    return {"configurable": {"thread_id": thread_id, **ids, **more}}


async def content(saver: Saver, thread_id: str = "t") -> list[Any]:
    """All that is stored for a thread, but its id."""
    found = []
    async for saved in saver.alist({"configurable": {"thread_id": thread_id}}):
        places = [dict((config or {}).get("configurable", {})) for config in (saved.config, saved.parent_config)]
        for place in places:
            place.pop("thread_id", None)
        found.append((*places, saved.checkpoint, saved.metadata, sorted(map(repr, saved.pending_writes or ()))))
    return sorted(found, key=repr)


async def run(saver: Saver, run_id: str, given: Any, thread_id: str = "t", **more: Any) -> Saver:
    """As a replica runs it; the run's own saver."""
    own = fenced_saver(saver, lambda: None)
    await asking_in_a_branch(checkpointer=own).ainvoke(given, at(thread_id, run_id, **more))
    return own


async def logged(saver: Saver, thread_id: str = "t") -> list[str]:
    state = await asking_in_a_branch(checkpointer=saver).aget_state(at(thread_id))
    return list(state.values.get("log", []))


async def test_the_first_run_leaves_nothing(saver: Saver) -> None:
    own = await run(saver, "r1", {"log": ["hi"]})
    assert await content(saver)
    await delete_run_checkpoints(own, "t", "r1", before=None)
    assert await content(saver) == []
    assert await logged(saver) == []


async def test_a_run_that_began_anew_is_taken_back(saver: Saver) -> None:
    await run(saver, "r1", {"log": ["hi"]})
    before = await content(saver)
    own = await run(saver, "r2", {"log": ["again"]})
    assert await content(saver) != before
    await delete_run_checkpoints(own, "t", "r2", before=None)
    assert await content(saver) == before


async def test_a_run_that_resumed_is_taken_back_with_its_answer(saver: Saver) -> None:
    await run(saver, "r1", {"log": ["hi"]})
    before = await content(saver)
    for run_id in ("r2", "r3"):
        own = await run(saver, run_id, Command(resume=f"Ann of {run_id}"))
        assert await content(saver) != before
        await delete_run_checkpoints(own, "t", run_id, before=None)
        assert await content(saver) == before
    graph = asking_in_a_branch(checkpointer=saver)
    assert [stop.value for stop in (await graph.aget_state(at("t"))).interrupts] == ["who?"]
    await run(saver, "r4", Command(resume="Eve"))
    await run(saver, "r5", Command(resume="for fun"))
    assert (await logged(saver))[-1] == "done"
    assert "Eve for fun" in await logged(saver)


async def test_the_second_answer_is_taken_back_and_the_first_stays(saver: Saver) -> None:
    await run(saver, "r1", {"log": ["hi"]})
    await run(saver, "r2", Command(resume="Ann"))
    before = await content(saver)
    own = await run(saver, "r3", Command(resume="no reason"))
    assert "Ann no reason" in await logged(saver)
    await delete_run_checkpoints(own, "t", "r3", before=None)
    assert await content(saver) == before
    await run(saver, "r4", Command(resume="for fun"))
    assert "Ann for fun" in await logged(saver)


async def test_it_is_asked_again_when_only_the_tables_are_left(saver: Saver) -> None:
    await run(saver, "r1", {"log": ["hi"]})
    await run(saver, "r2", Command(resume="Ann"))
    await run(saver, "r3", Command(resume="no reason"))
    assert (await logged(saver))[-1] == "done"
    await delete_run_checkpoints(saver, "t", "r3", before=None)
    state = await asking_in_a_branch(checkpointer=saver).aget_state(at("t"))
    assert (state.next, len(state.interrupts)) == (("talk",), 1)
    await run(saver, "r4", Command(resume="Eve"))
    await run(saver, "r5", Command(resume="for fun"))
    assert await logged(saver) == ["hi", "planned", "looked", "hi", "planned", "Eve for fun", "done"]


async def test_a_run_from_an_earlier_checkpoint_is_taken_back(saver: Saver) -> None:
    await run(saver, "r1", {"log": ["hi"]})
    await run(saver, "r2", Command(resume="Ann"))
    await run(saver, "r3", Command(resume="no reason"))
    history = [state async for state in asking_in_a_branch(checkpointer=saver).aget_state_history(at("t"))]
    before = await content(saver)
    for early in history:
        place = {"checkpoint_id": early.config["configurable"]["checkpoint_id"]}
        own = await run(saver, "r4", {"log": ["back"]} if not early.next else None, **place)
        await delete_run_checkpoints(own, "t", "r4", before=None)
        assert await content(saver) == before


async def test_twice_is_as_once_and_nothing_else_is_touched(saver: Saver) -> None:
    await run(saver, "r1", {"log": ["hi"]}, thread_id="other")
    other = await content(saver, "other")
    await run(saver, "r1", {"log": ["hi"]})
    own = await run(saver, "r2", Command(resume="Ann"))
    await delete_run_checkpoints(own, "t", "r2", before=None)
    once = await content(saver)
    await delete_run_checkpoints(own, "t", "r2", before=None)
    await delete_run_checkpoints(saver, "t", "r2", before=None)
    await delete_run_checkpoints(saver, "t", "unknown", before=None)
    assert await content(saver) == once
    assert await content(saver, "other") == other


async def test_what_a_delta_channel_keeps_on_the_checkpoint_before_is_taken_back(saver: Saver) -> None:
    if not hasattr(channels, "DeltaChannel"):
        pytest.skip("this LangGraph has no DeltaChannel")
    graph = _delta_graph()
    await graph.copy(update={"checkpointer": saver}).ainvoke({"log": ["one"]}, at("t", "r1"))
    before = await content(saver)
    own = fenced_saver(saver, lambda: None)
    await graph.copy(update={"checkpointer": own}).ainvoke({"log": ["two"]}, at("t", "r2"))
    await delete_run_checkpoints(own, "t", "r2", before=None)
    assert await content(saver) == before
    last = await graph.copy(update={"checkpointer": saver}).ainvoke({"log": ["three"]}, at("t", "r3"))
    assert last["log"] == ["one", "end", "three", "end"]


async def test_what_later_states_are_rebuilt_from_stays(saver: Saver) -> None:
    if not hasattr(channels, "DeltaChannel"):
        pytest.skip("this LangGraph has no DeltaChannel")
    graph = _delta_graph().copy(update={"checkpointer": saver})
    for run_id in ("r1", "r2", "r3"):
        await graph.ainvoke({"log": [run_id]}, at("t", run_id))
    await delete_run_checkpoints(saver, "t", "r2", before=None)
    assert (await graph.aget_state(at("t"))).values["log"] == ["r1", "end", "r2", "end", "r3", "end"]
    await delete_run_checkpoints(saver, "t", "r3", before=None)
    assert (await graph.aget_state(at("t"))).values["log"] == ["r1", "end", "r2", "end"]
    await graph.ainvoke({"log": ["r4"]}, at("t", "r4"))
    assert (await graph.aget_state(at("t"))).values["log"] == ["r1", "end", "r2", "end", "r4", "end"]


async def test_a_run_in_the_middle_goes_and_the_later_ones_stay(saver: Saver) -> None:
    for run_id in ("r1", "r2", "r3"):
        await run(saver, run_id, {"log": [run_id]})
    last = await logged(saver)
    await delete_run_checkpoints(saver, "t", "r2", before=None)
    assert await logged(saver) == last
    assert {metadata["run_id"] for *_, metadata, _ in await content(saver)} == {"r1", "r3"}


def _delta_graph() -> Any:
    def joined(old: Any, writes: Sequence[Any]) -> Any:
        return [*old, *(word for write in writes for word in write)]

    class Words(TypedDict):
        log: list[str]

    Words.__annotations__["log"] = Annotated[list[str], channels.DeltaChannel(joined, list)]
    builder = StateGraph(Words)
    builder.add_node("end", lambda state: {"log": ["end"]})
    builder.add_edge(START, "end")
    builder.add_edge("end", END)
    return builder.compile()


async def test_a_copy_has_everything_and_goes_its_own_way(saver: Saver) -> None:
    await run(saver, "r1", {"log": ["hi"]})
    await run(saver, "r2", Command(resume="Ann"))
    source = await content(saver)
    await copy_thread(saver, "t", "copy")
    assert await content(saver, "copy") == source
    await run(saver, "r3", Command(resume="for fun"), thread_id="copy")
    assert "Ann for fun" in await logged(saver, "copy")
    assert await content(saver) == source
    await saver.adelete_thread("t")
    assert "Ann for fun" in await logged(saver, "copy")


async def test_a_thread_without_checkpoints_copies_to_none(saver: Saver) -> None:
    await copy_thread(saver, "nobody", "copy")
    assert await content(saver, "copy") == []


async def test_a_saver_that_is_not_known_gets_the_state_before_on_top(caplog: pytest.LogCaptureFixture) -> None:
    saver = PlainSaver()
    graph = asking_in_a_branch(checkpointer=saver)
    own = await run(saver, "r1", {"log": ["hi"]})
    await delete_run_checkpoints(own, "t", "r1", before=None)
    assert await content(saver) == []

    inputs: list[Any] = [{"log": ["hi"]}, Command(resume="Ann"), Command(resume="for fun")]
    for given in inputs:
        await run(saver, "r1", given)
    before = await graph.aget_state(at("t"))
    head = before.config["configurable"]["checkpoint_id"]
    for run_id, known in (("r2", None), ("r3", head)):
        own = await run(saver, run_id, {"log": ["again"]})
        with caplog.at_level(logging.WARNING):
            await delete_run_checkpoints(own, "t", run_id, before=known)
        after = await graph.aget_state(at("t"))
        assert (after.values, after.next) == (before.values, before.next)
        assert after.config != before.config
    assert "a PlainSaver cannot delete the checkpoints of run r2" in caplog.text


async def test_a_saver_that_is_not_known_is_copied_through_its_own_methods() -> None:
    saver = PlainSaver()
    await run(saver, "r1", {"log": ["hi"]})
    await run(saver, "r2", Command(resume="Ann"))
    await copy_thread(saver, "t", "copy")
    assert await content(saver, "copy") == await content(saver)
    await run(saver, "r3", Command(resume="for fun"), thread_id="copy")
    assert "Ann for fun" in await logged(saver, "copy")


async def test_a_saver_that_can_is_asked() -> None:
    saver = CapableSaver()
    await delete_run_checkpoints(fenced_saver(saver, lambda: None), "t", "r1", before=None)
    await copy_thread(saver, "t", "copy")
    assert saver.asked == [("r1",), ("t", "copy")]


async def test_the_runs_own_saver_is_told_the_paths_of_tasks() -> None:
    saver = InMemorySaver()
    await run(saver, "r1", {"log": ["hi"]})
    assert any(path for writes in saver.writes.values() for *_, path in writes.values())


async def test_a_pool_that_was_closed_is_a_store_that_is_away(postgres_dsn: str, postgres_schema: str) -> None:
    async with postgres_saver(postgres_dsn, postgres_schema) as saver:
        pass
    with pytest.raises(StoreUnavailableError):
        await copy_thread(saver, "t", "copy")
