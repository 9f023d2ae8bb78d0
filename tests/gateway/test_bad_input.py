"""What cannot be stored is refused with 422 and leaves nothing behind; what can be stored can be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.graph import StateGraph

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.graphs import CountState
from gateway.serving import IN_MEMORY, by_header, in_process, served

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Replica]:
    """A replica on each kind of database."""
    config = dict(IN_MEMORY)
    if request.param == "sqlite":
        config["database"] = {"backend": "sqlite", "sqlite_dir": str(tmp_path)}
    if request.param == "postgres":
        schema = request.getfixturevalue("postgres_schema")
        dsn = request.getfixturevalue("postgres_dsn")
        config["database"] = {"backend": "postgres", "postgres_url": dsn, "postgres_schema": schema}
    async with open_replica(AppConfig.from_mapping(config)) as replica:
        yield replica


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


UNSTORABLE = {"deep": _nested(300), "large": {"a": 2**63}}
THREAD = "0b7c1a9e-3f5d-4c55-9a0b-8d1f2e3a4b5c"
NUL = {"value": {"a": "\0"}, "key": {"\0": 1}}


@pytest.mark.parametrize("metadata", [*UNSTORABLE.values(), *NUL.values()], ids=[*UNSTORABLE, *NUL])
@pytest.mark.parametrize("path", ["/threads", "/threads/search", "/threads/count"])
@pytest.mark.parametrize("user", ["u", None])
async def test_metadata_that_cannot_be_stored_is_refused(
    stored: Replica, graphs: dict[str, Any], path: str, metadata: Any, user: str | None
) -> None:
    app = create_app(stored, graphs, authenticate=by_header if user else None)
    async with in_process(app, user) as client:
        answer = await client.post(path, content=json.dumps({"metadata": metadata}))
        assert answer.status_code == 422, answer.text
        assert (await client.post("/threads/search", json={})).json() == []


@pytest.mark.parametrize("field", ["input", "metadata", "context", "config"])
@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
async def test_a_run_that_cannot_be_stored_is_refused(
    stored: Replica, graphs: dict[str, Any], field: str, value: Any
) -> None:
    async with in_process(create_app(stored, graphs)) as client:
        thread = (await client.post("/threads", json={})).json()["thread_id"]
        body = json.dumps({"assistant_id": "agent", field: {"configurable": value} if field == "config" else value})
        answer = await client.post(f"/threads/{thread}/runs", content=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"].startswith(f"{field}: cannot be stored: ")
        assert "event" not in answer.json()["detail"]
        assert (await client.get(f"/threads/{thread}/runs")).json() == []


@pytest.mark.parametrize("number", [1e300, -1e300, 1e-300, 2.0**70, 2**63 - 1, -(2**63), 0.1])
@pytest.mark.parametrize("user", ["u", None])
async def test_numbers_come_back(stored: Replica, graphs: dict[str, Any], number: float, user: str | None) -> None:
    app = create_app(stored, graphs, authenticate=by_header if user else None)
    async with in_process(app, user) as client:
        made = await client.post("/threads", json={"metadata": {"n": number}})
        assert made.status_code == 200, made.text
        found = (await client.post("/threads/search", json={"metadata": {"n": number}})).json()
        assert [thread["metadata"]["n"] for thread in found] == [number]


@pytest.mark.parametrize("path", ["/threads/search", "/assistants/search"])
async def test_an_offset_beyond_every_database_is_refused(stored: Replica, graphs: dict[str, Any], path: str) -> None:
    async with in_process(create_app(stored, graphs)) as client:
        assert (await client.post(path, json={"offset": 2**63 - 1})).status_code == 422


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"config": {"recursion_limit": "many"}}, "config.recursion_limit"),
        ({"config": {"recursion_limit": 0}}, "config.recursion_limit"),
        ({"config": {"max_concurrency": "many"}}, "config.max_concurrency"),
        ({"config": {"tags": "abc"}}, "config.tags"),
        ({"config": {"configurable": []}}, "config.configurable"),
        ({"config": {"metadata": 1}}, "config.metadata"),
        ({"config": {"configurable": {"checkpoint_id": 7}}}, "checkpoint_id"),
        ({"config": {"configurable": {"checkpoint_ns": 7}}}, "checkpoint_ns"),
        ({"checkpoint": {"checkpoint_id": "\0"}}, "checkpoint_id"),
        ({"checkpoint_id": "\0"}, "checkpoint_id"),
        ({"checkpoint": {"checkpoint_map": {"": 7}}}, "checkpoint_map"),
        ({"checkpoint": {"\0": 1}}, "checkpoint"),
        ({"metadata": {"\0": 1}}, "metadata"),
        ({"config": {"metadata": {"\0": 1}}}, "config.metadata"),
        ({"config": {"configurable": {"\0": 1}}}, "config.configurable"),
        ({"command": {}}, "command"),
        ({"command": {"resume": None}}, "command"),
        ({"command": {"goto": 5}}, "command.goto"),
    ],
    ids=str,
)
async def test_a_wrong_field_of_a_run_is_named(
    replica: Replica, graphs: dict[str, Any], wrong: Any, named: str
) -> None:
    async with in_process(create_app(replica, graphs, authenticate=by_header), "u") as client:
        body = {"assistant_id": "agent", "input": {}, "if_not_exists": "create", **wrong}
        answer = await client.post(f"/threads/{THREAD}/runs", json=body)
        assert answer.status_code == 422, answer.text
        assert named in answer.json()["detail"]
    assert await replica.threads.owner_of(THREAD) is None


async def test_a_replica_id_that_no_header_holds_is_no_failure(graphs: dict[str, Any]) -> None:
    config = AppConfig.from_mapping({**IN_MEMORY, "replica": {"id": "réplica ✓\r\nx: y"}})
    async with open_replica(config) as replica, in_process(create_app(replica, graphs)) as client:
        answer = await client.get("/ok")
        assert answer.status_code == 200
        assert answer.headers["x-replica-id"].startswith("r%C3%A9plica")
        assert "x" not in answer.headers


async def test_a_factory_keeps_the_defaults_of_its_own_parameters(replica: Replica, graphs: dict[str, Any]) -> None:
    def make(model: str = "small", *, loud: bool = False) -> Any:
        assert (model, loud) == ("small", False)
        return graphs["agent"]

    async with in_process(create_app(replica, {"agent": make})) as client:
        thread = (await client.post("/threads", json={})).json()["thread_id"]
        answer = await client.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "agent", "input": {}})
    assert answer.json() == {"total": 0}


@pytest.mark.parametrize("given", [5, "agent"])
def test_what_is_no_graph_is_refused_by_name(given: Any) -> None:
    with pytest.raises(TypeError, match="agent"):
        create_app(AppConfig(), {"agent": given})


def test_a_graph_that_was_not_compiled_is_told_so() -> None:
    with pytest.raises(TypeError, match="compile"):
        create_app(AppConfig(), {"agent": StateGraph(CountState)})  # type: ignore[dict-item]  # the mistake under test


async def test_a_client_that_leaves_in_its_body_is_no_failure(
    replica: Replica, graphs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(create_app(replica, graphs)) as url:
        address = httpx.URL(url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        await writer.drain()
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
