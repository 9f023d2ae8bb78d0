"""The states before, newest first; and runs that go on from one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from deerflow_replica.replica import Replica
from gateway.serving import official
from gateway.threads_of_talk import answered, asked, talking_app

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sdk(replica: Replica) -> AsyncIterator[LangGraphClient]:
    async with official(talking_app(replica)) as client:
        yield client


@pytest.fixture
def client(sdk: LangGraphClient) -> httpx.AsyncClient:
    return sdk.http.client


@pytest.fixture
async def thread_id(sdk: LangGraphClient) -> str:
    """A thread with two runs, the second of which answered both questions."""
    thread_id = await asked(sdk)
    await answered(sdk, thread_id, "Ann", "for fun")
    return thread_id


async def test_newest_first_each_with_the_next_as_its_parent(sdk: LangGraphClient, thread_id: str) -> None:
    history: Any = await sdk.threads.get_history(thread_id)
    assert history[0] == await sdk.threads.get_state(thread_id)
    assert [state["metadata"]["step"] for state in history] == [3, 2, 1, 0, -1]
    assert [state["parent_checkpoint_id"] for state in history] == [
        *(state["checkpoint_id"] for state in history[1:]),
        None,
    ]
    assert history == (await _get(sdk, thread_id)).json()


async def test_in_pages(sdk: LangGraphClient, client: httpx.AsyncClient, thread_id: str) -> None:
    whole: Any = await sdk.threads.get_history(thread_id)
    paged: list[Any] = []
    while page := await sdk.threads.get_history(thread_id, limit=2, before=paged[-1]["checkpoint"] if paged else None):
        paged += page
    assert paged == whole
    second = whole[1]["checkpoint_id"]
    for before in (second, {"checkpoint_id": second}, {"configurable": {"checkpoint_id": second}}):
        answer = await client.post(f"/threads/{thread_id}/history", json={"before": before, "limit": 2})
        assert answer.json() == whole[2:4]
    assert (await client.get(f"/threads/{thread_id}/history?limit=2&before={second}")).json() == whole[2:4]


async def test_by_metadata(sdk: LangGraphClient, thread_id: str) -> None:
    runs = await sdk.runs.list(thread_id)
    by_run = [await sdk.threads.get_history(thread_id, metadata={"run_id": run["run_id"]}) for run in runs]
    assert [state for found in by_run for state in found] == await sdk.threads.get_history(thread_id)
    assert [s["next"] for s in await sdk.threads.get_history(thread_id, metadata={"source": "input"})] == [
        ["__start__"]
    ]
    assert await sdk.threads.get_history(thread_id, metadata={"source": "nobody"}) == []


async def test_of_a_subgraph(sdk: LangGraphClient, thread_id: str) -> None:
    history: Any = await sdk.threads.get_history(thread_id)
    [place] = [task["checkpoint"] for state in history for task in state["tasks"] if task["name"] == "talk"]
    inner: Any = await sdk.threads.get_history(thread_id, checkpoint=place)
    assert [state["next"] for state in inner] == [[], ["ask"], ["__start__"]]
    assert {state["checkpoint"]["checkpoint_ns"] for state in inner} == {place["checkpoint_ns"]}


async def test_of_a_thread_without_runs(sdk: LangGraphClient) -> None:
    assert await sdk.threads.get_history((await sdk.threads.create())["thread_id"]) == []
    assert await sdk.threads.get_history((await sdk.threads.create(graph_id="agent"))["thread_id"]) == []


@pytest.mark.parametrize("limit", [0, -1, 1001, "2", 1.5, True])
async def test_a_limit_is_one_to_a_thousand(client: httpx.AsyncClient, thread_id: str, limit: Any) -> None:
    assert (await client.post(f"/threads/{thread_id}/history", json={"limit": limit})).status_code == 422


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=", "limit=1" + 5000 * "0", "limit=٣", "before=%00"]
)
async def test_a_query_that_cannot_be_meant(client: httpx.AsyncClient, thread_id: str, query: str) -> None:
    assert (await client.get(f"/threads/{thread_id}/history?{query}")).status_code == 422


async def test_a_limit_of_a_thousand_is_fine(client: httpx.AsyncClient, thread_id: str) -> None:
    assert len((await client.get(f"/threads/{thread_id}/history?limit=1000")).json()) == 5


@pytest.mark.parametrize("by", ["checkpoint", "checkpoint_id", "config"])
async def test_a_run_from_an_earlier_checkpoint_forks(sdk: LangGraphClient, thread_id: str, by: str) -> None:
    history: Any = await sdk.threads.get_history(thread_id)
    [early] = [state for state in history if state["next"] == ["plan"]]
    bodies: dict[str, dict[str, Any]] = {
        "checkpoint": {"checkpoint": early["checkpoint"]},
        "checkpoint_id": {"checkpoint_id": early["checkpoint_id"]},
        "config": {"config": {"configurable": {"checkpoint_id": early["checkpoint_id"]}}},
    }
    await sdk.runs.wait(thread_id, "agent", input=None, **bodies[by])
    await answered(sdk, thread_id, "Eve", "to learn")
    after: Any = await sdk.threads.get_history(thread_id)
    assert after[-len(history) :] == history
    assert "Eve to learn" in after[0]["values"]["log"]
    assert "Ann for fun" not in after[0]["values"]["log"]
    assert early["checkpoint_id"] in {state["parent_checkpoint_id"] for state in after[: -len(history)]}


@pytest.mark.skipif(version("langgraph") < "1.2", reason="LangGraph before 1.2 replays the subgraph's old answer")
async def test_a_run_from_a_checkpoint_of_a_subgraph_forks(sdk: LangGraphClient, thread_id: str) -> None:
    history: Any = await sdk.threads.get_history(thread_id)
    [place] = [task["checkpoint"] for state in history for task in state["tasks"] if task["name"] == "talk"]
    inner: Any = await sdk.threads.get_history(thread_id, checkpoint=place)
    [early] = [state for state in inner if state["next"] == ["ask"]]
    assert set(early["checkpoint"]["checkpoint_map"]) == {"", place["checkpoint_ns"]}
    await sdk.runs.wait(thread_id, "agent", input=None, checkpoint=early["checkpoint"])
    await answered(sdk, thread_id, "Eve", "to learn")
    after: Any = await sdk.threads.get_state(thread_id)
    assert "Eve to learn" in after["values"]["log"]
    assert "Ann for fun" not in after["values"]["log"]


async def _get(sdk: LangGraphClient, thread_id: str) -> httpx.Response:
    return await sdk.http.client.get(f"/threads/{thread_id}/history")
