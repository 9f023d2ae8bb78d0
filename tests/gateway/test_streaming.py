"""Streams and joins over a real server: what the official client sees, and what is on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import httpx
import orjson
import pytest
from langgraph_sdk.client import LangGraphClient

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import IN_MEMORY, Clients, in_process, served
from gateway.wire import frames_of
from waiting import eventually

pytestmark = pytest.mark.anyio


@dataclass
class Serving:
    url: str
    client: LangGraphClient
    replica: Replica

    async def thread(self) -> str:
        created = await self.client.threads.create()
        return str(created["thread_id"])


@pytest.fixture
async def serving(replica: Replica, graphs: dict[str, Any], sdk: Clients) -> AsyncIterator[Serving]:
    async with served(create_app(replica, graphs)) as url:
        yield Serving(url, sdk(url), replica)


async def _get(url: str, cursor: str | None = None) -> tuple[httpx.Response, list[dict[str, str]]]:
    headers = {} if cursor is None else {"last-event-id": cursor}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(url, headers=headers)
    return answer, frames_of(answer.text)


async def _finished(serving: Serving, count: int = 5, **body: Any) -> tuple[str, list[dict[str, str]]]:
    thread_id = await serving.thread()
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(
            f"{serving.url}/threads/{thread_id}/runs/stream",
            json={"assistant_id": "agent", "input": {"count": count}, "stream_mode": ["custom"], **body},
        )
    assert answer.status_code == 200, answer.text
    return f"{serving.url}{answer.headers['content-location']}", frames_of(answer.text)


async def test_the_official_client_streams_a_run(serving: Serving) -> None:
    thread_id = await serving.thread()
    created: list[Any] = []
    parts = [
        part
        async for part in serving.client.runs.stream(
            thread_id,
            "agent",
            input={"count": 3},
            stream_mode=["custom", "values"],
            on_run_created=created.append,
        )
    ]
    assert [part.event for part in parts] == ["metadata", "values", "custom", "custom", "custom", "values"]
    assert parts[0].data == {"run_id": created[0]["run_id"], "attempt": 1}
    assert created[0]["thread_id"] == thread_id
    assert [part.data["n"] for part in parts if part.event == "custom"] == [0, 1, 2]
    assert (parts[-1].data or {})["total"] == 3
    assert len({part.id for part in parts}) == len(parts)
    run = await serving.client.runs.get(thread_id, created[0]["run_id"])
    assert run["status"] == "success"
    state = await serving.client.threads.get_state(thread_id)
    assert state["values"]["total"] == 3  # type: ignore[call-overload]  # the SDK types values as a list too
    joined = await serving.client.runs.join(thread_id, created[0]["run_id"])
    assert joined["total"] == 3


async def test_the_wire(serving: Serving) -> None:
    thread_id = await serving.thread()
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(
            f"{serving.url}/threads/{thread_id}/runs/stream",
            json={"assistant_id": "agent", "input": {"count": 1}, "stream_mode": "custom"},
        )
    place = answer.headers["content-location"]
    assert place.startswith(f"/threads/{thread_id}/runs/")
    assert answer.headers["location"] == f"{place}/stream"
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-replica-id"] == serving.replica.replica_id
    first, second = frames_of(answer.text)
    assert list(first) == ["event", "data", "id"]
    assert (first["event"], orjson.loads(first["data"])["attempt"]) == ("metadata", 1)
    assert (second["event"], second["data"]) == ("custom", '{"n":0}')
    assert second["id"].split("-") == [first["id"].split("-")[0], "1"]


async def test_a_failure_is_a_last_error_event(serving: Serving) -> None:
    place, frames = await _finished(serving, count=1, input={"count": 1, "fail": "boom"})
    assert [frame["event"] for frame in frames] == ["metadata", "custom", "error"]
    assert orjson.loads(frames[-1]["data"]) == {"error": "RuntimeError", "message": "boom"}
    _, again = await _get(f"{place}/stream", frames[1]["id"])
    assert again == frames[2:]
    _, nothing = await _get(f"{place}/stream", frames[2]["id"])
    assert nothing == []


async def test_an_end_event_where_it_is_wanted_but_not_after_an_error(graphs: dict[str, Any], sdk: Clients) -> None:
    config = AppConfig.from_mapping({**IN_MEMORY, "gateway": {"emit_end_event": True}})
    async with open_replica(config) as replica, served(create_app(replica, graphs)) as url:
        serving = Serving(url, sdk(url), replica)
        _, good = await _finished(serving, count=1)
        _, bad = await _finished(serving, count=1, input={"count": 0, "fail": "boom"})
    assert good[-1] == {"event": "end", "data": "null"}
    assert [frame["event"] for frame in bad] == ["metadata", "error"]


async def test_a_joined_stream_is_filtered_and_its_way_back_too(serving: Serving) -> None:
    place, _ = await _finished(serving, stream_mode=["custom", "updates", "values"])
    for query in ("stream_mode=updates", 'stream_mode=["updates"]'):
        answer, frames = await _get(f"{place}/stream?{query}", "-1")
        assert [frame["event"] for frame in frames] == ["metadata", "updates"]
        assert answer.headers["location"].endswith("/stream?stream_mode=%5B%22updates%22%5D")
    _, frames = await _get(f"{place}/stream?stream_mode=updates&stream_mode=custom", "-1")
    assert [frame["event"] for frame in frames] == ["metadata", *["custom"] * 5, "updates"]
    answer, _ = await _get(f"{place}/stream?stream_mode=events")
    assert answer.status_code == 422


async def test_what_was_trimmed_is_a_gap_and_never_a_silent_part(graphs: dict[str, Any], sdk: Clients) -> None:
    shallow = AppConfig.from_mapping({**IN_MEMORY, "stream_bridge": {"queue_maxsize": 10}})
    async with open_replica(shallow) as replica, served(create_app(replica, graphs)) as url:
        place, frames = await _finished(Serving(url, sdk(url), replica), count=50)
        assert len(frames) == 51, "its own reader was there all the time"
        for cursor in ("-1", "0", "0-0", frames[20]["id"]):
            _, [gap] = await _get(f"{place}/stream", cursor)
            assert (gap["event"], orjson.loads(gap["data"])["error"]) == ("error", "StreamGap")
            assert orjson.loads(gap["data"])["earliest_available_event_id"] == frames[-10]["id"]
        assert (await _get(f"{place}/stream", frames[-11]["id"]))[1] == frames[-10:]


async def test_a_run_that_waits_in_line_can_be_joined(serving: Serving) -> None:
    thread_id = await serving.thread()
    first = await serving.client.runs.create(thread_id, "agent", input={"count": 10_000, "pause": 0.02})
    second = await serving.client.runs.create(thread_id, "agent", input={"count": 2}, stream_mode=["custom"])
    assert (await serving.client.runs.get(thread_id, second["run_id"]))["status"] == "pending"

    async def events() -> list[str]:
        return [part.event async for part in serving.client.runs.join_stream(thread_id, second["run_id"])]

    joined = asyncio.create_task(events())
    await eventually(lambda: serving.replica.bridge.stats().subscribers)
    await serving.client.runs.cancel(thread_id, first["run_id"])
    assert await joined == ["metadata", "custom", "custom"]
    assert (await serving.client.runs.get(thread_id, first["run_id"]))["status"] == "interrupted"


async def test_a_client_that_leaves_does_not_end_the_run_unless_it_said_so(serving: Serving) -> None:
    async def leave(on_disconnect: Literal["continue", "cancel"]) -> tuple[str, str]:
        thread_id = await serving.thread()
        created: list[Any] = []
        async for part in serving.client.runs.stream(
            thread_id,
            "agent",
            input={"count": 40 if on_disconnect == "continue" else 10_000, "pause": 0.02},
            stream_mode="custom",
            on_disconnect=on_disconnect,
            on_run_created=created.append,
        ):
            if part.event == "custom":
                break
        return thread_id, created[0]["run_id"]

    async def status(thread_id: str, run_id: str) -> str:
        async def over() -> Any:
            found = (await serving.client.runs.get(thread_id, run_id))["status"]
            return None if found in ("pending", "running") else found

        return str(await eventually(over))

    assert await status(*await leave("continue")) == "success"
    assert await status(*await leave("cancel")) == "interrupted"


async def test_the_client_follows_a_stream_that_was_cut(replica: Replica, graphs: dict[str, Any], sdk: Clients) -> None:
    app = create_app(replica, graphs)
    async with served(app) as url:
        client = sdk(url)
        thread_id = str((await client.threads.create())["thread_id"])
        numbers = []
        async for part in client.runs.stream(
            thread_id, "agent", input={"count": 60, "pause": 0.02}, stream_mode="custom"
        ):
            if part.event == "custom":
                numbers.append(part.data["n"])
            if len(numbers) == 10:
                app.state.gateway.close_streams()
    assert numbers == list(range(60))


async def test_two_apps_with_their_own_replicas_never_meet(graphs: dict[str, Any], sdk: Clients) -> None:
    one, two = (AppConfig.from_mapping({**IN_MEMORY, "log_level": level}) for level in ("info", "debug"))
    async with (
        served(create_app(one, graphs), lifespan="on") as first,
        served(create_app(two, graphs), lifespan="on") as second,
    ):
        thread_id = str(uuid4())
        await sdk(first).threads.create(thread_id=thread_id)
        assert await sdk(second).threads.search() == []
        await sdk(second).threads.create(thread_id=thread_id)
        assert await sdk(second).runs.wait(thread_id, "agent", input={"count": 2}) == {"count": 2, "total": 2}
        assert await sdk(first).runs.list(thread_id) == []


async def test_a_client_that_leaves_before_the_answer_leaves_no_reader(
    replica: Replica, graphs: dict[str, Any]
) -> None:
    app, left = create_app(replica, graphs), asyncio.Event()
    async with in_process(app) as client:
        thread_id = (await client.post("/threads", json={})).json()["thread_id"]
    body = orjson.dumps({"assistant_id": "agent", "input": {"count": 1}})
    asked: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if asked:
            return asked.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        left.set()
        await asyncio.Event().wait()

    path = f"/threads/{thread_id}/runs/stream"
    await app({"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}, receive, send)
    assert replica.bridge.stats().subscribers == 0
