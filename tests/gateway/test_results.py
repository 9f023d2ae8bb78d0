"""The answers that wait for a run: heartbeats first, then one JSON value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import open_replica
from deerflow_replica.testing._contract import for_one_of
from gateway.serving import IN_MEMORY, in_process
from gateway.wire import frames_of, joined

pytestmark = pytest.mark.anyio

SLOW = {"count": 10, "pause": 0.02}
ENDLESS = {"count": 10_000, "pause": 0.02}


@pytest.fixture
async def client(graphs: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    config = AppConfig.from_mapping({**IN_MEMORY, "gateway": {"heartbeat_interval_seconds": 0.02}})
    async with open_replica(config) as replica, in_process(create_app(replica, graphs)) as opened:
        yield opened


async def _thread(client: httpx.AsyncClient) -> str:
    return f"/threads/{(await client.post('/threads', json={})).json()['thread_id']}"


async def _begun(client: httpx.AsyncClient, thread: str, given: dict[str, Any], graph: str = "agent") -> str:
    body = {"assistant_id": graph, "input": given, "stream_mode": "custom"}
    return str((await client.post(f"{thread}/runs", json=body)).headers["content-location"])


async def _while_it_lasts(ask: Callable[[dict[str, Any]], Awaitable[httpx.Response]]) -> httpx.Response:
    """The answer about a run, which takes longer until it is waited for: a busy machine may be late to ask."""
    for count in (10, 100, 500):
        answer = await ask({"count": count, "pause": 0.02})
        if answer.content.startswith(b"\n\n\n"):
            break
    return answer


def _checked(answer: httpx.Response, place: str | None = None) -> Any:
    """The value after the heartbeats."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["location"] == answer.headers["content-location"] + "/join"
    assert place in (None, answer.headers["content-location"])
    beats = answer.content[: len(answer.content) - len(answer.content.lstrip(b"\n"))]
    assert len(beats) >= 3
    assert b"\n" not in answer.content[len(beats) :]
    return orjson.loads(answer.content)


async def test_wait_beats_until_the_run_is_over(client: httpx.AsyncClient) -> None:
    async def ask(given: dict[str, Any]) -> httpx.Response:
        body = {"assistant_id": "agent", "input": given}
        return await client.post(f"{await _thread(client)}/runs/wait", json=body)

    value = _checked(await _while_it_lasts(ask))
    assert value["total"] == value["count"]


async def test_join_beats_until_the_run_is_over(client: httpx.AsyncClient) -> None:
    async def ask(given: dict[str, Any]) -> httpx.Response:
        places.append(await _begun(client, await _thread(client), given))
        return await client.get(f"{places[-1]}/join")

    places: list[str] = []
    value = _checked(await _while_it_lasts(ask), places[-1])
    assert value["total"] == value["count"]


async def test_a_failed_run_is_an_error_in_a_good_answer(client: httpx.AsyncClient) -> None:
    async def ask(given: dict[str, Any]) -> httpx.Response:
        places.append(await _begun(client, await _thread(client), {**given, "fail": "boom"}))
        return await client.get(f"{places[-1]}/join")

    places: list[str] = []
    error = {"__error__": {"error": "RuntimeError", "message": "boom"}}
    assert _checked(await _while_it_lasts(ask), places[-1]) == error


async def test_a_cancelled_run_has_the_values_it_came_to(client: httpx.AsyncClient) -> None:
    thread = await _thread(client)
    place = await _begun(client, thread, ENDLESS)
    stream = asyncio.ensure_future(joined(client, f"{place}/stream", "-1"))
    joining = asyncio.ensure_future(client.get(f"{place}/join"))
    async with asyncio.timeout(60):
        await asyncio.wait([stream], timeout=0.2)
        answer = await client.post(f"{place}/cancel?wait=1")
        assert orjson.loads(answer.content) == orjson.loads((await joining).content)
        assert "error" not in {frame["event"] for frame in await stream}
    assert answer.headers["location"] == f"{place}/join"
    assert (await client.get(place)).json()["status"] == "interrupted"


async def test_a_run_that_was_cancelled_before_it_began_leaves_nothing(client: httpx.AsyncClient) -> None:
    thread = await _thread(client)
    first, second = await _begun(client, thread, ENDLESS), await _begun(client, thread, SLOW)
    assert orjson.loads((await client.post(f"{second}/cancel?wait=1")).content) == {}
    assert orjson.loads((await client.get(f"{second}/join")).content) == {}
    assert await joined(client, f"{second}/stream", "-1") == []
    await client.post(f"{first}/cancel?wait=1")


async def test_a_join_has_its_own_runs_values_whatever_came_after(client: httpx.AsyncClient) -> None:
    thread = await _thread(client)
    places = [await _begun(client, thread, {"count": count, "pause": 0.02}) for count in (3, 4, 5)]
    answers = await asyncio.gather(*(client.get(f"{place}/join") for place in places))
    assert [orjson.loads(answer.content)["total"] for answer in answers] == [3, 4, 5]


async def test_streams_beat_too_created_or_joined(client: httpx.AsyncClient) -> None:
    async def both_beat(pause: float) -> bool:
        thread = await _thread(client)
        body = {"assistant_id": "agent", "input": {"count": 3, "pause": pause}, "stream_mode": "custom"}
        created = await client.post(f"{thread}/runs/stream", json=body)
        place = await _begun(client, thread, {"count": 3, "pause": pause})
        now = await client.get(f"{place}/stream")
        assert [frame["event"] for frame in frames_of(created.text)] == ["metadata", *["custom"] * 3]
        if {frame["event"] for frame in frames_of(now.text)} != {"custom"}:  # those that were still to come
            return False
        return all(answer.text.count(": heartbeat\n\n") >= 5 for answer in (created, now))

    assert await for_one_of((0.1, 1.0, 5.0), both_beat)
