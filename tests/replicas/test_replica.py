"""One replica in one process: its parts, its runs, and how it is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import FakeListChatModel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import Runtime
from langgraph.store.memory import InMemoryStore

from deerflow_replica.config import AppConfig
from deerflow_replica.context import DeerFlowContext
from deerflow_replica.counters.inmemory import InMemoryModelCounters
from deerflow_replica.errors import ConfigError, ReplicaError, RunConflictError, ThreadOwnershipError
from deerflow_replica.middleware import ModelCounterMiddleware
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.stream import END_SENTINEL, InMemoryStreamBridge
from deerflow_replica.testing._contract import for_one_of
from deerflow_replica.threads.inmemory import InMemoryThreadMap
from runs.graphs import State, agent, ask, fail, one, steps, two, wait_for_ever, who
from waiting import eventually

pytestmark = pytest.mark.anyio


class _Seeing(AgentMiddleware[Any, DeerFlowContext]):
    def __init__(self, seen: list[int]) -> None:
        super().__init__()
        self._seen = seen

    def before_agent(self, state: Any, runtime: Runtime[DeerFlowContext]) -> None:
        self._seen.append(runtime.context.app_config.title.max_words)


def in_memory(folder: Path, **sections: Any) -> AppConfig:
    memory = {"backend_config": {"storage_path": str(folder / "memory")}}
    return AppConfig.from_mapping({"database": {"backend": "memory"}, "memory": memory, **sections})


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    async with open_replica(in_memory(tmp_path, replica={"shutdown_grace_seconds": 0})) as replica:
        yield replica


async def events(replica: Replica, run_id: str) -> list[tuple[str, Any]]:
    items = [item async for item in replica.bridge.subscribe(run_id)]
    assert items.pop() is END_SENTINEL
    return [(item.event, item.data) for item in items]  # type: ignore[union-attr]  # a gap would fail here, too


async def test_run_publishes_ends_and_leaves_its_record(replica: Replica) -> None:
    run = await replica.start_run(steps(one, two), {}, thread_id="t", user_id="u", metadata={"k": 1})
    assert await run.wait() == "success"
    shown = await events(replica, run.run_id)
    assert shown[0] == ("metadata", {"run_id": run.run_id, "attempt": 1})
    assert shown[-1] == ("values", {"log": ["one", "two"]})
    record, thread = await replica.runs.get(run.run_id), await replica.runs.get_thread("t")
    assert record is not None
    assert thread is not None
    assert (record.status, record.metadata, record.owner) == ("success", {"k": 1}, replica.replica_id)
    assert (thread.status, thread.values, thread.user_id) == ("idle", {"log": ["one", "two"]}, "u")


async def test_record_is_terminal_before_the_stream_ends(replica: Replica) -> None:
    for graph, status in ((steps(one), "success"), (steps(fail), "error")):
        run = await replica.start_run(graph, {}, thread_id="t")
        last = [item async for item in replica.bridge.subscribe(run.run_id)][-1]
        record = await replica.runs.get(run.run_id)
        assert last is END_SENTINEL
        assert record is not None
        assert record.status == status


async def test_failing_graph_is_an_error_event_and_a_status(replica: Replica) -> None:
    run = await replica.start_run(steps(fail), {}, thread_id="t")
    assert await run.wait() == "error"
    error = {"error": "ValueError", "message": "no such luck"}
    assert (await events(replica, run.run_id))[-1] == ("error", error)
    assert await replica.bridge.end_reason(run.run_id) == "error"
    record = await replica.runs.get(run.run_id)
    assert record is not None
    assert record.error == error
    again = await replica.start_run(steps(one), {}, thread_id="t")
    assert await again.wait() == "success"


async def test_graph_that_cannot_be_entered_is_an_error_after_metadata(replica: Replica) -> None:
    run = await replica.start_run(object(), {}, thread_id="t")
    assert await run.wait() == "error"
    assert [event for event, _ in await events(replica, run.run_id)] == ["metadata", "error"]


async def test_stream_run_yields_up_to_and_with_end(replica: Replica) -> None:
    items = [item async for item in replica.stream_run(steps(one), {}, thread_id="t", stream_mode="updates")]
    assert [item.event for item in items[:-1]] == ["metadata", "updates"]  # type: ignore[union-attr]
    assert items[-1] is END_SENTINEL


async def test_leaving_the_stream_does_not_cancel_the_run(replica: Replica) -> None:
    stream = replica.stream_run(steps(one), {}, thread_id="t", run_id="r")
    async for _ in stream:
        break
    await stream.aclose()
    await eventually(_has_status(replica, "r", "success"))


async def test_cancelled_run_is_interrupted_and_its_stream_has_no_error(replica: Replica) -> None:
    run = await replica.start_run(steps(one, wait_for_ever), {}, thread_id="t")
    await eventually(lambda: run.status == "running")
    assert await run.cancel()
    assert await run.wait() == "interrupted"
    assert "error" not in [event for event, _ in await events(replica, run.run_id)]
    assert await replica.bridge.end_reason(run.run_id) == "cancelled"
    assert not await run.cancel()


async def test_cancel_through_the_registry_does_not_wait_for_a_renewal(replica: Replica) -> None:
    async def is_told_at_once(attempt: float) -> bool:
        run = await replica.start_run(steps(wait_for_ever), {}, thread_id=f"t{attempt:.0f}")
        began = time.monotonic()
        assert await replica.runs.cancel(run.run_id)
        assert await run.wait() == "interrupted"
        return time.monotonic() - began < 1

    assert await for_one_of((1, 2, 3), is_told_at_once)


async def test_runs_of_a_thread_wait_for_each_other(replica: Replica) -> None:
    first = await replica.start_run(steps(wait_for_ever), {}, thread_id="t")
    second = await replica.start_run(steps(one), {}, thread_id="t")
    third = await replica.start_run(steps(one), {}, thread_id="t")
    assert (second.status, third.status) == ("pending", "pending")
    with pytest.raises(RunConflictError):
        await replica.start_run(steps(one), {}, thread_id="t", multitask_strategy="reject")
    assert await second.cancel()
    async with asyncio.timeout(60):
        assert await second.wait() == "interrupted"
        assert await events(replica, second.run_id) == []
        await first.cancel()
        assert await third.wait() == "success"


async def test_only_so_many_runs_at_once(tmp_path: Path) -> None:
    config = in_memory(tmp_path, gateway={"max_concurrent_runs": 1}, replica={"shutdown_grace_seconds": 0})
    async with open_replica(config) as replica:
        first = await replica.start_run(steps(wait_for_ever), {}, thread_id="t1")
        second = await replica.start_run(steps(one), {}, thread_id="t2")
        await eventually(lambda: first.status == "running")
        assert second.status == "pending"
        await first.cancel()
        async with asyncio.timeout(60):
            assert await second.wait() == "success"


async def test_interrupted_graph_is_a_successful_run_of_an_interrupted_thread(replica: Replica) -> None:
    graph = steps(ask, checkpointer=replica.checkpointer)
    run = await replica.start_run(graph, {}, thread_id="t")
    assert await run.wait() == "success"
    thread = await replica.runs.get_thread("t")
    assert thread is not None
    assert thread.status == "interrupted"
    ((shown,),) = thread.interrupts.values()
    assert shown["value"] == {"question": "go on?"}


async def test_run_knows_its_ids_whatever_the_caller_configured(replica: Replica) -> None:
    config = {"configurable": {"thread_id": "other", "run_id": "other", "mine": 1}, "tags": ["x"]}
    graph = steps(who, checkpointer=replica.checkpointer)
    run = await replica.start_run(graph, {}, thread_id="t", run_id="r", config=config)
    assert await run.wait() == "success"
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    assert state.values["seen"] == "r"
    assert (await graph.aget_state({"configurable": {"thread_id": "other"}})).values == {}


async def test_strangers_input_never_reaches_the_threads_checkpoint(replica: Replica) -> None:
    graph = agent("hello", middleware=replica.middleware(), context_schema=DeerFlowContext)
    graph = graph.copy(update={"checkpointer": replica.checkpointer})
    run = await replica.start_run(graph, {"messages": [("user", "mine")]}, thread_id="t", user_id="owner")
    assert await run.wait() == "success"
    for user_id in ("stranger", None):
        with pytest.raises(ThreadOwnershipError):
            await replica.start_run(graph, {"messages": [("user", "theirs")]}, thread_id="t", user_id=user_id)
    state = await graph.aget_state({"configurable": {"thread_id": "t"}})
    assert [message.text for message in state.values["messages"]] == ["mine", "hello"]
    assert [record.run_id for record in await replica.runs.list("t")] == [run.run_id]


async def test_refused_run_leaves_nothing(replica: Replica) -> None:
    with pytest.raises(ValueError, match="stream_mode"):
        await replica.start_run(steps(one), {}, thread_id="t", user_id="u", stream_mode="nonsense")
    unknown: Any = "sometimes"
    with pytest.raises(ValueError, match="sometimes"):
        await replica.start_run(steps(one), {}, thread_id="t", user_id="u", multitask_strategy=unknown)
    assert await replica.threads.owner_of("t") is None
    assert await replica.runs.list("t") == ()
    assert await replica.runs.get_thread("t") is None


async def test_input_without_json_form_runs_all_the_same(replica: Replica) -> None:
    def typed(state: State) -> State:
        return {"log": [type(state.get("seen")).__name__]}

    run = await replica.start_run(steps(typed), {"seen": object()}, thread_id="t", stream_mode="updates")
    assert await run.wait() == "success"
    thread = await replica.runs.get_thread("t")
    assert thread is not None
    assert thread.values is None


async def test_two_replicas_with_different_configs_never_meet(tmp_path: Path) -> None:
    configs = [in_memory(tmp_path / name, title={"max_words": words}) for name, words in (("a", 3), ("b", 9))]
    async with open_replica(configs[0]) as a, open_replica(configs[1]) as b:
        assert a.replica_id != b.replica_id
        seen: dict[str, list[int]] = {"a": [], "b": []}

        async def runs_on(name: str, replica: Replica) -> None:
            graph = agent(
                "hello", middleware=[*replica.middleware(), _Seeing(seen[name])], context_schema=DeerFlowContext
            )
            for number in range(5):
                run = await replica.start_run(
                    graph, {"messages": [("user", name)]}, thread_id="t", user_id=name, run_id=f"r{number}"
                )
                assert await run.wait() == "success"
                values = [data for event, data in await events(replica, run.run_id) if event == "values"]
                assert values[0]["messages"][0]["content"] == name

        await asyncio.gather(runs_on("a", a), runs_on("b", b))
        assert seen == {"a": [3] * 5, "b": [9] * 5}
        assert (await a.threads.owner_of("t"), await b.threads.owner_of("t")) == ("a", "b")
        assert len(await a.runs.list("t")) == len(await b.runs.list("t")) == 5


async def test_middlewares_are_new_ordered_and_follow_the_config(tmp_path: Path) -> None:
    async with open_replica(in_memory(tmp_path)) as replica:
        own = _Seeing([])
        names = [type(one).__name__ for one in replica.middleware([own])]
        assert names == ["ThreadOwnershipMiddleware", "_Seeing", "MemoryMiddleware", "ModelCounterMiddleware"]
        first, second = replica.middleware(), replica.middleware()
        assert all(one is not other for one, other in zip(first, second, strict=True))
        with pytest.raises(ValueError, match="models"):
            replica.middleware(models={})
        routed = replica.middleware(models={"m": FakeListChatModel(responses=["x"])})
        assert [type(one).__name__ for one in routed][-2:] == ["ModelRoutingMiddleware", "ModelCounterMiddleware"]
        with pytest.raises(ConfigError, match="ModelCounterMiddleware"):
            replica.middleware([ModelCounterMiddleware(replica.counters)])
    async with open_replica(in_memory(tmp_path, model_feedback={"enabled": False})) as replica:
        counted = {"ModelRoutingMiddleware", "ModelCounterMiddleware"}
        models = {"m": FakeListChatModel(responses=["x"])}
        assert not counted & {type(one).__name__ for one in replica.middleware(models=models)}
        assert replica.health.state("m").state == "closed"


@pytest.mark.parametrize(
    ("written", "threshold", "seconds"),
    [
        ({}, 5, 30),
        ({"circuit_breaker": {"failure_threshold": 2, "recovery_timeout_sec": 7}}, 2, 7),
        ({"circuit_breaker": {"failure_threshold": 3}}, 3, 60),
        ({"circuit_breaker": {"recovery_timeout_sec": 0}}, 5, 1),
        ({"circuit_breaker": {"recovery_timeout_sec": 900}}, 5, 900),
        ({"model_feedback": {"health": {"failure_threshold": 4, "open_seconds": 12, "jitter": 0}}}, 4, 12),
        ({"circuit_breaker": {"failure_threshold": 3}, "model_feedback": {"health": {"failure_threshold": 2}}}, 2, 60),
    ],
)
async def test_health_is_as_the_config_says(
    tmp_path: Path, written: dict[str, Any], threshold: int, seconds: float
) -> None:
    async with open_replica(in_memory(tmp_path, **written)) as replica:
        for _ in range(threshold - 1):
            replica.counters.record("m", "failure", error_type="transient")
        assert replica.health.state("m").state == "closed"
        replica.counters.record("m", "failure", error_type="transient")
        until = replica.health.state("m").open_until
        assert until is not None
        assert seconds - 1 < until - time.time() < seconds * 1.1 + 1


async def test_config_and_context_are_the_very_objects(tmp_path: Path) -> None:
    config = in_memory(tmp_path)
    async with open_replica(config) as replica:
        assert replica.config is config
        context = replica.context(thread_id="t", user_id="u", agent_name="a", run_id="r")
        assert context.app_config is config
        assert (context.thread_id, context.user_id, context.agent_name, context.run_id) == ("t", "u", "a", "r")


async def test_check_asks_every_part(replica: Replica) -> None:
    results = await replica.check()
    parts = ["bridge", "store", "checkpointer", "memory", "threads", "counters", "runs"]
    assert [result.name for result in results] == parts
    assert all(result.ok for result in results)
    await replica.threads.close()
    failed = [result for result in await replica.check() if not result.ok]
    assert [(result.name, result.section) for result in failed] == [("threads", "user_thread_mapping")]
    assert "closed" in failed[0].detail
    await replica.runs.close()
    failed = [result for result in await replica.check() if not result.ok]
    assert [(result.name, result.section) for result in failed][1:] == [("runs", "database")]


async def test_default_config_keeps_everything_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in (["one"], ["one", "one"]):
        async with open_replica() as replica:
            graph = steps(one, checkpointer=replica.checkpointer)
            run = await replica.start_run(graph, {}, thread_id="t", user_id="u")
            assert await run.wait() == "success"
            thread = await replica.runs.get_thread("t")
            assert thread is not None
            assert thread.values == {"log": expected}
            await replica.store.aput(("n",), "k", {"v": len(expected)})
            assert await replica.threads.owner_of("t") == "u"
    assert {path.name for path in (tmp_path / ".deer-flow/data").glob("*.db")} == {"deerflow.db", "deerflow_replica.db"}


async def test_memory_backend_writes_nothing_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_replica(AppConfig.from_mapping({"database": {"backend": "memory"}})) as replica:
        run = await replica.start_run(agent("hello", middleware=replica.middleware()), {"messages": []}, thread_id="t")
        await run.wait()
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


# Leaving


async def test_leaving_gives_runs_their_grace(tmp_path: Path) -> None:
    going_on = asyncio.Event()

    async def wait(state: State) -> State:
        await going_on.wait()
        return {"log": ["done"]}

    async with open_replica(in_memory(tmp_path)) as replica:
        run = await replica.start_run(steps(wait), {}, thread_id="t")
        asyncio.get_running_loop().call_later(0.1, going_on.set)
    assert await run.wait() == "success"


async def test_leaving_ends_what_still_runs_visibly(tmp_path: Path) -> None:
    bridge = InMemoryStreamBridge()
    before = asyncio.all_tasks()
    async with open_replica(in_memory(tmp_path, replica={"shutdown_grace_seconds": 0.05}), bridge=bridge) as replica:
        runs = [await replica.start_run(steps(wait_for_ever), {}, thread_id="t", run_id=f"r{n}") for n in range(2)]
        await eventually(lambda: runs[0].status == "running")
    for run in runs:
        assert await run.wait() == "error"
        assert await bridge.end_reason(run.run_id) == "error"
        last = [item async for item in bridge.subscribe(run.run_id)][-2]
        assert last.event == "error"  # type: ignore[union-attr]  # a gap would fail here, too
        assert last.data["error"] == "ReplicaShutdown"  # type: ignore[union-attr]
    assert asyncio.all_tasks() == before
    await bridge.close()


async def test_borrowed_parts_stay_open(tmp_path: Path) -> None:
    bridge, threads = InMemoryStreamBridge(), InMemoryThreadMap()
    counters, store, saver = InMemoryModelCounters(), InMemoryStore(), InMemorySaver()
    parts: dict[str, Any] = {"bridge": bridge, "threads": threads, "counters": counters, "store": store}
    async with open_replica(in_memory(tmp_path), **parts, checkpointer=saver) as replica:
        assert all(getattr(replica, name) is part for name, part in parts.items())
        assert replica.checkpointer is saver
        run = await replica.start_run(steps(one), {}, thread_id="t", user_id="u")
        await run.wait()
    assert await bridge.stream_exists(run.run_id)
    assert await threads.owner_of("t") == "u"
    await bridge.close()
    await threads.close()
    await counters.close()


async def test_after_closing_every_method_says_so(tmp_path: Path) -> None:
    async with open_replica(in_memory(tmp_path)) as replica:
        pass
    with pytest.raises(ReplicaError, match="closed"):
        await replica.start_run(steps(one), {}, thread_id="t")
    with pytest.raises(ReplicaError, match="closed"):
        await anext(replica.stream_run(steps(one), {}, thread_id="t"))
    with pytest.raises(ReplicaError, match="closed"):
        await replica.check()
    for call in (replica.middleware, lambda: replica.context(thread_id="t")):
        with pytest.raises(ReplicaError, match="closed"):
            call()


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_nothing_is_left(tmp_path: Path, backend: str) -> None:
    config = in_memory(tmp_path, database={"backend": backend, "sqlite_dir": str(tmp_path)})
    tasks = asyncio.all_tasks()
    threads = set(threading.enumerate())
    async with open_replica(config) as replica:
        run = await replica.start_run(steps(one, checkpointer=replica.checkpointer), {}, thread_id="t", user_id="u")
        await run.wait()
        await replica.store.aput(("n",), "k", {"v": 1})
    assert asyncio.all_tasks() == tasks

    def left() -> list[threading.Thread]:  # the loop's own executor threads are the loop's
        return [one for one in set(threading.enumerate()) - threads if not one.name.startswith("asyncio_")]

    await eventually(lambda: not left(), what="the last step of each thread")


def test_replica_that_is_never_left_warns(tmp_path: Path) -> None:
    async def open_and_forget() -> None:
        await open_replica(in_memory(tmp_path)).__aenter__()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(open_and_forget())
        gc.collect()
    assert "never closed" in "".join(str(one.message) for one in caught if one.category is ResourceWarning)


async def test_config_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="AppConfig"):
        open_replica({"database": {"backend": "memory"}})  # type: ignore[arg-type]  # that is the point


async def test_part_that_is_not_available_names_its_key(tmp_path: Path) -> None:
    config = in_memory(tmp_path, store={"type": "sqlite", "text_index": {"fields": ["$"]}})
    before = asyncio.all_tasks()
    with pytest.raises(ConfigError, match=r"store\.text_index"):
        async with open_replica(config):
            pass
    assert asyncio.all_tasks() == before


def _has_status(replica: Replica, run_id: str, status: str) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        record = await replica.runs.get(run_id)
        return record is not None and record.status == status

    return has
