"""The modes of a stream, as a request asks for them and as they come."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway.graphs import asking_graph
from gateway.serving import in_process
from gateway.wire import Frame, data_of, frames_of, joined
from runs.graphs import State, agent, one, steps

pytestmark = pytest.mark.anyio

BOTH = quote('["updates","custom"]')
ONE = quote('["updates"]')
ASKED = {"messages": [{"role": "user", "content": "hi"}]}


def _nested() -> Any:
    """A node that asks an agent: what the agent streams has a namespace."""
    inner = agent("deep thought")

    async def outer(state: State) -> State:
        answer = await inner.ainvoke({"messages": [("user", "hi")]})
        return {"log": [answer["messages"][-1].text]}

    return steps(one, outer)


@pytest.fixture
async def client(replica: Replica) -> Any:
    graphs = {"agent": agent("hello world"), "nested": _nested(), "steps": steps(one), "asking": asking_graph()}
    async with in_process(create_app(replica, graphs)) as opened:
        yield opened


async def _streamed(client: httpx.AsyncClient, graph: str, **body: Any) -> tuple[str, list[Frame]]:
    """Where the run's stream is, and its frames."""
    thread_id = (await client.post("/threads", json={})).json()["thread_id"]
    given = {"assistant_id": graph, "input": ASKED if graph == "agent" else {}, **body}
    answer = await client.post(f"/threads/{thread_id}/runs/stream", json=given)
    assert answer.status_code == 200, answer.text
    return answer.headers["location"], frames_of(answer.text)


def _names(frames: list[Frame]) -> list[str]:
    return [frame["event"] for frame in frames]


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (None, {"values"}),
        ("values", {"values"}),
        ([], {"values"}),
        ("updates", {"updates"}),
        (["custom"], {"custom"}),
        (["tasks", "checkpoints"], {"tasks", "checkpoints"}),
        ("debug", {"debug"}),
        (["values", "updates", "custom"], {"values", "updates", "custom"}),
    ],
)
async def test_plain_modes_come_under_their_own_names(
    client: httpx.AsyncClient, modes: Any, expected: set[str]
) -> None:
    _, frames = await _streamed(client, "steps", **({} if modes is None else {"stream_mode": modes}))
    assert frames[0]["event"] == "metadata"
    assert set(_names(frames[1:])) == expected


async def test_tuples_are_chunk_and_metadata(client: httpx.AsyncClient) -> None:
    _, frames = await _streamed(client, "agent", stream_mode="messages-tuple")
    assert set(_names(frames[1:])) == {"messages"}
    pairs = [data_of(frame) for frame in frames[1:]]
    assert "".join(chunk["content"] for chunk, _ in pairs) == "hello world"
    assert {chunk["type"] for chunk, _ in pairs} == {"AIMessageChunk"}
    assert {metadata["langgraph_node"] for _, metadata in pairs} == {"model"}


async def test_messages_so_far_come_after_their_metadata(client: httpx.AsyncClient) -> None:
    _, frames = await _streamed(client, "agent", stream_mode=["messages"])
    assert _names(frames[1:2]) == ["messages/metadata"]
    assert set(_names(frames[2:])) == {"messages/partial"}
    [message_id] = data_of(frames[1])
    messages = [data_of(frame)[0] for frame in frames[2:]]
    assert {(message["id"], message["type"]) for message in messages} == {(message_id, "ai")}
    assert messages[-1]["content"] == "hello world"


async def test_both_kinds_of_messages_are_tuples_only(client: httpx.AsyncClient) -> None:
    _, frames = await _streamed(client, "agent", stream_mode=["messages", "messages-tuple"])
    assert set(_names(frames[1:])) == {"messages"}


async def test_subgraphs_have_their_namespace_but_for_messages(client: httpx.AsyncClient) -> None:
    modes = ["updates", "messages"]
    place, frames = await _streamed(client, "nested", stream_mode=modes, stream_subgraphs=True)
    namespaced = [name for name in _names(frames) if "|" in name]
    assert namespaced
    assert all(name.startswith("updates|outer:") for name in namespaced)
    assert {name for name in _names(frames) if name.startswith("messages")} == {"messages/metadata", "messages/partial"}
    updates = [frame for frame in frames if frame["event"].startswith(("metadata", "updates"))]
    assert await joined(client, f"{place}?stream_mode=updates", "-1") == updates


async def test_tuples_of_subgraphs_have_their_namespace(client: httpx.AsyncClient) -> None:
    place, frames = await _streamed(client, "nested", stream_mode="messages-tuple", stream_subgraphs=True)
    assert all(name.startswith("messages|outer:") for name in _names(frames[1:]))
    for mode in ("messages", "messages-tuple"):
        assert await joined(client, f"{place}?stream_mode={mode}", "-1") == frames


async def test_without_subgraphs_nothing_of_them_comes(client: httpx.AsyncClient) -> None:
    _, frames = await _streamed(client, "nested", stream_mode="updates")
    assert _names(frames) == ["metadata", "updates", "updates"]


async def test_interrupts_come_where_they_belong(client: httpx.AsyncClient) -> None:
    _, frames = await _streamed(client, "asking", stream_mode=["values", "updates"])
    shown = [data_of(frame)["__interrupt__"] for frame in frames if "__interrupt__" in data_of(frame)]
    assert _names(frames)[-2:] == ["updates", "values"]
    assert shown[0] == shown[1]
    assert [(one["value"], set(one)) for one in shown[0]] == [("what?", {"value", "id"})]


async def test_interrupts_come_also_to_who_asked_for_neither_mode(client: httpx.AsyncClient) -> None:
    _, frames = await _streamed(client, "asking", stream_mode="custom")
    assert _names(frames) == ["metadata", "updates"]
    assert list(data_of(frames[1])) == ["__interrupt__"]


@pytest.mark.parametrize(
    "query",
    [
        "stream_mode=updates&stream_mode=custom",
        f"stream_mode={BOTH}",
        f"stream_mode={ONE}&stream_mode=custom",
    ],
)
async def test_a_join_names_its_modes_in_any_spelling(client: httpx.AsyncClient, query: str) -> None:
    place, frames = await _streamed(client, "steps", stream_mode=["values", "updates", "custom"])
    answer = await client.get(f"{place}?{query}", headers={"last-event-id": "-1"})
    assert frames_of(answer.text) == [frame for frame in frames if frame["event"] != "values"]
    assert answer.headers["location"] == f"{place}?stream_mode={BOTH}"
    assert answer.headers["content-location"] == place.removesuffix("/stream")


@pytest.mark.parametrize("modes", ["events", ["values", "events"], "message", 7, [["values"]]])
async def test_an_unknown_mode_is_refused_before_anything_runs(client: httpx.AsyncClient, modes: Any) -> None:
    thread_id = (await client.post("/threads", json={})).json()["thread_id"]
    for route in ("runs", "runs/stream", "runs/wait"):
        body = {"assistant_id": "steps", "input": {}, "stream_mode": modes}
        answer = await client.post(f"/threads/{thread_id}/{route}", json=body)
        assert answer.status_code == 422
        assert "stream_mode" in answer.json()["detail"]
    assert (await client.get(f"/threads/{thread_id}/runs")).json() == []


async def test_a_run_in_the_background_streams_its_modes_too(client: httpx.AsyncClient) -> None:
    thread_id = (await client.post("/threads", json={})).json()["thread_id"]
    body = {"assistant_id": "steps", "input": {}, "stream_mode": ["custom"]}
    created = await client.post(f"/threads/{thread_id}/runs", json=body)
    frames = await joined(client, f"{created.headers['content-location']}/stream", "-1")
    assert _names(frames) == ["metadata", "custom"]
