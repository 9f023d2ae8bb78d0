"""What a scrape sees of one app: its own numbers, under names and labels that stay few."""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import IN_MEMORY, by_header, in_process
from gateway.wire import joined
from waiting import eventually

pytestmark = pytest.mark.anyio

Samples = dict[str, dict[tuple[str, ...], float]]


async def _scraped(client: httpx.AsyncClient) -> Samples:
    """Values by name and label values, in the order of the labels' names."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name.removeprefix("deerflow_"), {})[labels] = sample.value
    return found


async def _ran(client: httpx.AsyncClient, **given: Any) -> str:
    """Where a run's stream is that has ended; one metadata event and `count` others."""
    thread_id = (await client.post("/threads", json={})).json()["thread_id"]
    body = {"assistant_id": "agent", "input": given, "stream_mode": "custom"}
    answer = await client.post(f"/threads/{thread_id}/runs/stream", json=body)
    return str(answer.headers["location"])


@pytest.fixture
async def client(replica: Replica, graphs: dict[str, Any]) -> Any:
    async with in_process(create_app(replica, graphs)) as opened:
        yield opened


async def test_runs_events_and_gaps_are_counted(client: httpx.AsyncClient, replica: Replica) -> None:
    place = await _ran(client, count=3)
    await _ran(client, count=0, fail="boom")
    await joined(client, place, "1700000000000000-3")
    await replica.bridge.cleanup(place.split("/")[4])
    await joined(client, place, "0-0")
    replica.counters.record("m", "success")
    found = await _scraped(client)
    assert found["gateway_runs_total"] == {("agent", "success"): 1, ("agent", "error"): 1}
    assert found["gateway_events_sent_total"] == {(): 6}
    assert found["gateway_stream_gaps_total"] == {(): 2}
    assert found["gateway_orphans_total"] == found["gateway_runs_active"] == found["gateway_sse_connections"] == {(): 0}
    assert found["model_calls_total"]["m", "success"] == 1
    assert found["model_circuit_open"] == {("m",): 0}


async def test_what_goes_on_is_shown_while_it_does(client: httpx.AsyncClient) -> None:
    thread_id = (await client.post("/threads", json={})).json()["thread_id"]
    body = {"assistant_id": "agent", "input": {"count": 1000, "pause": 0.01}, "stream_mode": "custom"}
    created = await client.post(f"/threads/{thread_id}/runs", json=body)
    place = created.headers["content-location"]

    async def shown(value: float) -> Any:
        found = await _scraped(client)
        return found["gateway_runs_active"] == found["gateway_sse_connections"] == {(): value}

    joining = asyncio.ensure_future(joined(client, f"{place}/stream"))
    await eventually(lambda: shown(1))
    await client.post(f"{place}/cancel?wait=1")
    await joining
    await eventually(lambda: shown(0))
    assert (await _scraped(client))["gateway_runs_total"] == {("agent", "interrupted"): 1}


async def test_labels_are_templates_whatever_is_asked_for(client: httpx.AsyncClient) -> None:
    for _ in range(5):
        await client.get(f"/threads/{uuid4()}")
        await client.get(f"/{uuid4()}")
        await client.request(f"X{uuid4().hex}", "/ok")
        await client.request(f"X{uuid4().hex}", f"/{uuid4()}")
        await client.get(f"/threads/{uuid4().hex[:5]}")
    assert (await _scraped(client))["gateway_requests_total"] == {
        ("GET", "/threads/{thread_id}", "404"): 5,
        ("GET", "/threads/{thread_id}", "422"): 5,
        ("GET", "unmatched", "404"): 5,
        ("other", "/ok", "405"): 5,
        ("other", "unmatched", "404"): 5,
    }


async def test_two_apps_of_one_process_count_for_themselves(graphs: dict[str, Any]) -> None:
    before = {metric.name for metric in REGISTRY.collect()}
    configs = [AppConfig.from_mapping({**IN_MEMORY, "log_level": level}) for level in ("info", "debug")]
    async with (
        open_replica(configs[0]) as one,
        open_replica(configs[1]) as two,
        in_process(create_app(one, graphs)) as first,
        in_process(create_app(two, graphs)) as second,
    ):
        await _ran(first, count=1)
        one.counters.record("m", "success")
        assert (await _scraped(first))["gateway_events_sent_total"] == {(): 2}
        other = await _scraped(second)
    assert other["gateway_events_sent_total"] == {(): 0}
    assert "gateway_runs_total" not in other
    assert "model_calls_total" not in other
    assert {metric.name for metric in REGISTRY.collect()} == before


async def test_a_scrape_needs_no_user_and_may_ask_for_openmetrics(replica: Replica, graphs: dict[str, Any]) -> None:
    async with in_process(create_app(replica, graphs, authenticate=by_header)) as client:
        answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_without_the_extra_the_answer_says_what_to_install(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "deerflow_replica.gateway.metrics", raising=False)
    monkeypatch.delitem(sys.modules, "deerflow_replica.counters.exporters.prometheus", raising=False)
    answer = await client.get("/metrics")
    assert answer.status_code == 501
    assert "pip install 'deerflow-replica[metrics]'" in answer.json()["detail"]
