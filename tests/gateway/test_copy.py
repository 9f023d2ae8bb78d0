"""A thread copied: everything of it, owned by who copied it, and independent."""

from __future__ import annotations

from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import in_process
from gateway.threads_of_talk import answered, asked, copied, sdk_of, talking_app

pytestmark = pytest.mark.anyio


def _as_of(states: Any, thread_id: str) -> Any:
    """The same states, of another thread."""
    match states:
        case dict():
            return {key: thread_id if key == "thread_id" else _as_of(value, thread_id) for key, value in states.items()}
        case list():
            return [_as_of(one, thread_id) for one in states]
    return states


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def config(request: pytest.FixtureRequest, tmp_path: Any) -> AppConfig:
    backend: dict[str, Any] = {"backend": request.param}
    if request.param == "sqlite":
        backend["sqlite_dir"] = str(tmp_path)
    if request.param == "postgres":
        backend["postgres_url"] = request.getfixturevalue("postgres_dsn")
        backend["postgres_schema"] = request.getfixturevalue("postgres_schema")
    return AppConfig.from_mapping({"database": backend, "stream_bridge": {"queue_maxsize": 10_000}})


async def test_a_copy_has_the_same_states_and_goes_its_own_way(config: AppConfig) -> None:
    async with open_replica(config) as replica:
        sdk = sdk_of(talking_app(replica))
        source = await asked(sdk, topic="deer")
        await answered(sdk, source, "Ann")
        before = await sdk.threads.get_history(source)
        copy = await copied(sdk, source)
        target = copy["thread_id"]
        assert target != source
        assert await sdk.threads.get_history(target) == _as_of(before, target)
        assert await sdk.threads.get(target) == copy
        thread: Any = await sdk.threads.get(source)
        for field in ("metadata", "status", "values", "interrupts", "error"):
            assert copy[field] == thread[field]
        assert copy["metadata"]["topic"] == "deer"
        assert copy["status"] == "interrupted"
        assert await sdk.runs.list(target) == []

        values = await answered(sdk, target, "for fun")
        assert "Ann for fun" in values["log"]
        assert await sdk.threads.get_history(source) == before
        await sdk.threads.update_state(source, {"log": ["other"]}, as_node="done")
        assert (await sdk.threads.get_state(target))["values"] == values


async def test_a_copy_is_its_makers(replica: Replica) -> None:
    app = talking_app(replica, owned=True)
    alice, mallory = sdk_of(app, "alice"), sdk_of(app, "mallory")
    source = await asked(alice)
    async with in_process(app, "mallory") as client:
        assert (await client.post(f"/threads/{source}/copy")).status_code == 404
    assert await mallory.threads.search() == []
    copy = await copied(alice, source)
    owner = await replica.threads.owner_of(copy["thread_id"])
    assert owner == "alice"
    questions: list[dict[str, Any]] = [{}, {"status": "interrupted"}, {"metadata": {"graph_id": "agent"}}]
    for filters in questions:
        found = await alice.threads.search(**filters)
        assert {thread["thread_id"] for thread in found} == {source, copy["thread_id"]}


async def test_a_thread_without_runs_is_copied_too(replica: Replica) -> None:
    sdk = sdk_of(talking_app(replica))
    source = await sdk.threads.create(metadata={"topic": "deer"})
    copy = await copied(sdk, source["thread_id"])
    assert (copy["metadata"], copy["status"]) == ({"topic": "deer"}, "idle")
    assert await sdk.threads.get_history(copy["thread_id"]) == []


async def test_a_copy_of_a_busy_thread_is_not(replica: Replica) -> None:
    sdk = sdk_of(talking_app(replica))
    source = await asked(sdk)
    run = await sdk.runs.create(source, "counting", input={"count": 100, "pause": 1})
    copy = await copied(sdk, source)
    assert copy["status"] in ("idle", "interrupted")
    assert (await sdk.threads.get(source))["status"] == "busy"
    await sdk.runs.cancel(source, run["run_id"], wait=True)


async def test_a_failed_thread_stays_failed(replica: Replica) -> None:
    sdk = sdk_of(talking_app(replica))
    source = (await sdk.threads.create())["thread_id"]
    await sdk.runs.wait(source, "counting", input={"count": 1, "fail": "no luck"}, raise_error=False)
    copy = await copied(sdk, source)
    assert (copy["status"], copy["error"]["message"]) == ("error", "no luck")
