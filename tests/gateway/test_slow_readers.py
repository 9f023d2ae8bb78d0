"""A client that accepts nothing: it is cut, its run goes on, and what it did not take fills no memory."""

from __future__ import annotations

import socket
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import pytest
from langgraph.config import get_stream_writer

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import open_replica
from gateway.serving import IN_MEMORY, served
from runs.graphs import State, steps
from waiting import eventually

pytestmark = pytest.mark.anyio

EVENTS, EVENT_BYTES = 2000, 16_000
SOCKETS_HOLD = 12 * 2**20  # what the kernel's buffers on both sides take at most


def _talkative(state: State) -> State:
    writer = get_stream_writer()
    for _ in range(EVENTS):
        writer({"text": "x" * EVENT_BYTES})
    return {"log": ["told"]}


def _asked(url: str, path: str) -> socket.socket:
    """A connection whose request is sent and whose answer nobody reads."""
    address = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.hostname, address.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: replica\r\nlast-event-id: -1\r\n\r\n".encode())
    return connection


async def test_a_client_that_accepts_nothing_is_cut_and_the_run_goes_on() -> None:
    config = AppConfig.from_mapping({**IN_MEMORY, "gateway": {"send_timeout_seconds": 1.0}})
    async with open_replica(config) as replica:
        app = create_app(replica, {"agent": steps(_talkative)})
        async with served(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
            thread_id = (await client.post("/threads", json={})).json()["thread_id"]
            body = {"assistant_id": "agent", "input": {}, "stream_mode": "custom"}
            created = await client.post(f"/threads/{thread_id}/runs", json=body)
            place = created.headers["content-location"]
            with closing(_asked(url, f"{place}/stream")):
                await eventually(lambda: app.state.gateway.open_event_streams == 1)
                assert (await client.get(f"{place}/join")).json() == {"log": ["told"]}
                await eventually(lambda: app.state.gateway.open_event_streams == 0)
            assert (await client.get(place)).json()["status"] == "success"
            assert 0 < app.state.gateway.tallies.events_sent * EVENT_BYTES < SOCKETS_HOLD
