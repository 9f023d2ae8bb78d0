"""Every cell of the table of cursors: what a join gets by its `Last-Event-ID` and by what is left of the run."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from deerflow_replica.stream import StreamEvent
from gateway.serving import IN_MEMORY, in_process
from gateway.wire import Frame, data_of, joined, numbers_of
from runs.graphs import State
from waiting import eventually

pytestmark = pytest.mark.anyio

FOREIGN = "1700000000000000-3"
CURSORS = ("absent", "malformed", "-1", "0", "0-0", "an id", "last id", "foreign", "beyond")
RUNNING: dict[str, str] = {
    "absent": "now", "malformed": "now", "-1": "all", "0": "all", "0-0": "all",
    "an id": "after", "last id": "after", "foreign": "gap", "beyond": "gap",
}  # fmt: skip
RETAINED = {**RUNNING, "absent": "nothing", "malformed": "nothing", "last id": "nothing"}
GONE = {**dict.fromkeys(CURSORS, "gap"), "absent": "nothing", "malformed": "nothing", "-1": "nothing"}


@dataclass
class Ticking:
    """A graph that counts until it is stopped."""

    count: int = 0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def graph(self) -> Any:
        async def tick(state: State) -> State:
            writer = get_stream_writer()
            while not self.stopped.is_set():
                writer({"n": self.count})
                self.count += 1
                await asyncio.sleep(0.001)
            return {}

        builder = StateGraph(State)
        builder.add_node("tick", tick)
        builder.add_edge(START, "tick")
        builder.add_edge("tick", END)
        return builder.compile()


@dataclass
class Ticked:
    """A run of it, some events old."""

    ticking: Ticking
    client: httpx.AsyncClient
    replica: Replica
    place: str

    @property
    def stream(self) -> str:
        return f"{self.place}/stream"

    @property
    def run_id(self) -> str:
        return self.place.rpartition("/")[2]

    async def over(self) -> list[Frame]:
        """Its frames, once it has stopped."""
        self.ticking.stopped.set()
        assert (await self.client.get(f"{self.place}/join")).status_code == 200
        return await joined(self.client, self.stream, "-1")

    async def id_of(self, number: int) -> str:
        async with aclosing(self.replica.bridge.subscribe(self.run_id)) as items:
            async for item in items:
                if isinstance(item, StreamEvent) and item.event == "custom" and item.data["n"] == number:
                    return item.id
        raise AssertionError("the stream has ended")

    async def epoch(self) -> str:
        async with aclosing(self.replica.bridge.subscribe(self.run_id, heartbeat_interval=math.inf)) as items:
            item = await anext(items)
        assert isinstance(item, StreamEvent)
        return item.id.partition("-")[0]

    async def cursor(self, name: str) -> str | None:
        match name:
            case "absent":
                return None
            case "malformed":
                return "01-1"
            case "an id":
                return await self.id_of(2)
            case "beyond":
                return (await self.id_of(2)).partition("-")[0] + "-999999"
            case "foreign":
                return FOREIGN
        return name


@pytest.fixture(params=["memory", "redis"])
def bridge_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "memory":
        return {"type": "memory"}
    url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("key_prefix")
    return {"type": "redis", "redis_url": url, "key_prefix": prefix}


@pytest.fixture
async def ticked(bridge_settings: dict[str, Any], request: pytest.FixtureRequest) -> AsyncIterator[Ticked]:
    depth = getattr(request, "param", 10_000)
    config = AppConfig.from_mapping({**IN_MEMORY, "stream_bridge": {**bridge_settings, "queue_maxsize": depth}})
    ticking = Ticking()
    async with open_replica(config) as replica, in_process(create_app(replica, {"agent": ticking.graph()})) as client:
        thread = (await client.post("/threads", json={})).json()
        body = {"assistant_id": "agent", "input": {}, "stream_mode": "custom"}
        created = await client.post(f"/threads/{thread['thread_id']}/runs", json=body)
        run = Ticked(ticking, client, replica, created.headers["content-location"])
        await eventually(lambda: ticking.count > 12)
        await replica.bridge.flush()
        yield run
        ticking.stopped.set()


@pytest.mark.parametrize("name", CURSORS)
async def test_of_a_run_that_goes_on(ticked: Ticked, name: str) -> None:
    stats, before = ticked.replica.bridge.stats, ticked.ticking.count
    cursor = await ticked.id_of(10) if name == "last id" else await ticked.cursor(name)
    await ticked.replica.bridge.flush()
    delivered = stats().delivered
    joining = asyncio.ensure_future(joined(ticked.client, ticked.stream, cursor))
    if RUNNING[name] != "gap":
        await eventually(lambda: stats().delivered > delivered + 10)
        await ticked.over()
    got = await joining
    everything = await ticked.over()
    match RUNNING[name]:
        case "gap":
            _check_gap(got, cursor)
        case "now":
            assert got == everything[-len(got) :] != []
            assert numbers_of(got)[0] >= before
        case "all":
            assert got == everything
        case "after":
            assert got == [frame for frame in everything[1:] if data_of(frame)["n"] > (10 if name == "last id" else 2)]


@pytest.mark.parametrize("name", CURSORS)
async def test_of_a_run_that_is_over_then_without_its_stream(ticked: Ticked, name: str) -> None:
    cursor = await ticked.cursor(name)
    everything = await ticked.over()
    if name == "last id":
        cursor = everything[-1]["id"]
    got = await joined(ticked.client, ticked.stream, cursor)
    match RETAINED[name]:
        case "gap":
            _check_gap(got, cursor)
        case "nothing":
            assert got == []
        case "all":
            assert got == everything
            assert numbers_of(got) == list(range(ticked.ticking.count))
        case "after":
            assert got == everything[4:]
    await ticked.replica.bridge.cleanup(ticked.run_id)
    got = await joined(ticked.client, ticked.stream, cursor)
    if GONE[name] == "nothing":
        assert got == []
    else:
        _check_gap(got, cursor)


@pytest.mark.parametrize("ticked", [5], indirect=True)
@pytest.mark.parametrize("is_over", [False, True])
async def test_what_was_trimmed_is_a_gap(ticked: Ticked, is_over: bool) -> None:
    """Never a silent part of what was asked for."""
    early = f"{await ticked.epoch()}-3"
    if is_over:
        ticked.ticking.stopped.set()
        await ticked.client.get(f"{ticked.place}/join")
    for cursor in ("-1", "0", "0-0", early):
        _check_gap(await joined(ticked.client, ticked.stream, cursor), "0-0" if cursor == "-1" else cursor)


def _check_gap(frames: list[Frame], cursor: str | None) -> None:
    [gap] = frames
    data = data_of(gap)
    assert list(gap) == ["event", "data"], "a frame that is not in the stream has no id"
    assert (gap["event"], data["error"], data["requested_event_id"]) == ("error", "StreamGap", cursor)
    assert set(data) == {"error", "message", "requested_event_id", "earliest_available_event_id"}
