"""The same requests to LangGraph's own server and to ours: the streams say the same.

`REFERENCE_SERVER_PYTHON` names the Python of an environment that has `langgraph-api` and `langgraph-runtime-inmem`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway import reference_graphs
from gateway.serving import in_process
from gateway.wire import Frame, data_of, frames_of
from waiting import eventually_sync

pytestmark = pytest.mark.anyio

GRAPHS = ("steps", "asking", "failing", "talking", "nesting")
SCRIPT = """
from langgraph_api.cli import run_server
run_server("127.0.0.1", {port}, reload=False, graphs={graphs!r}, open_browser=False, allow_blocking=True,
           runtime_edition="inmem", server_level="ERROR")
"""
NAMESPACE = re.compile(r":[0-9a-f-]{36}")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the reference server."""
    python = os.environ.get("REFERENCE_SERVER_PYTHON")
    if not python:
        pytest.skip("REFERENCE_SERVER_PYTHON names no Python that has the reference server")
    port = 21_000 + os.getpid() % 10_000
    graphs = {name: f"{Path(str(reference_graphs.__file__))}:{name}" for name in GRAPHS}
    with subprocess.Popen(
        [python, "-c", SCRIPT.format(port=port, graphs=graphs)],
        cwd=tmp_path_factory.mktemp("reference"),
        env={**os.environ, "LANGSMITH_TRACING": "false"},
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    ) as process:
        try:
            eventually_sync(lambda: _is_up(f"http://127.0.0.1:{port}/ok"), timeout=60, what="the reference server")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("graph", "body"),
    [
        ("steps", {}),
        ("steps", {"stream_mode": ["values", "updates", "custom"]}),
        ("steps", {"stream_mode": ["tasks"]}),
        ("steps", {"stream_mode": "events-that-nobody-knows"}),
        ("steps", {"interrupt_before": ["two"], "stream_mode": "values"}),
        ("asking", {"stream_mode": "values"}),
        ("asking", {"stream_mode": ["updates", "values"]}),
        ("failing", {"stream_mode": "updates"}),
        ("talking", {"stream_mode": "messages-tuple"}),
        ("talking", {"stream_mode": "messages"}),
        ("nesting", {"stream_mode": "updates", "stream_subgraphs": True}),
        ("nesting", {"stream_mode": "updates"}),
    ],
)
async def test_the_streams_say_the_same(replica: Replica, reference: str, graph: str, body: dict[str, Any]) -> None:
    app = create_app(replica, {name: getattr(reference_graphs, name) for name in GRAPHS})
    async with in_process(app) as ours, httpx.AsyncClient(base_url=reference, timeout=30) as theirs:
        assert await _told(ours, graph, body) == await _told(theirs, graph, body)


async def _told(client: httpx.AsyncClient, graph: str, body: dict[str, Any]) -> tuple[int, list[Any]]:
    thread_id = (await client.post("/threads", json={})).json()["thread_id"]
    given = {"assistant_id": graph, "input": {"log": ["in"]}, **body}
    answer = await client.post(f"/threads/{thread_id}/runs/stream", json=given)
    if answer.status_code != 200:
        return answer.status_code, []
    return 200, [_essence(frame) for frame in frames_of(answer.text.replace("\r\n", "\n"))]


def _essence(frame: Frame) -> tuple[str, Any]:
    """A frame without what is new each time."""
    event = NAMESPACE.sub(":*", frame["event"])
    return event, _plain(event.partition("|")[0], data_of(frame))


def _plain(event: str, data: Any) -> Any:
    match event:
        case "metadata" | "tasks":
            return sorted(data)
        case "messages":
            return data[0]["type"], data[0]["content"], data[1]["langgraph_node"]
        case "messages/metadata":
            return [metadata["metadata"]["langgraph_node"] for metadata in data.values()]
        case "messages/partial" | "messages/complete":
            return [(message["type"], message["content"]) for message in data]
    if "__interrupt__" in data:
        data = {**data, "__interrupt__": [one["value"] for one in data["__interrupt__"]]}
    return data
