"""Names, defaults and shapes that callers write against."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import subprocess
import sys
from typing import Any

import pytest

from deerflow_replica import stream
from deerflow_replica.errors import StreamUnavailableError
from deerflow_replica.stream import (
    END_SENTINEL,
    HEARTBEAT_SENTINEL,
    InMemoryStreamBridge,
    RedisStreamBridge,
    StreamBridge,
    StreamEvent,
    StreamGap,
    StreamStats,
)
from deerflow_replica.stream.base import StreamSettings

SHARED = {
    "queue_maxsize": 256,
    "max_event_bytes": 8 * 2**20,
    "max_stream_bytes": 64 * 2**20,
    "live_window": 8192,
    "invalid_cursor": "replay",
    "resume_gap": "exact",
    "stream_ttl_seconds": 86400,
}
REDIS = {
    "redis_url": None,
    "client": None,
    "key_prefix": "deerflow:stream_bridge",
    "max_connections": None,
    "push": "pubsub",
    "ack": "pipelined",
    "max_pending_events": 10_000,
    "max_pending_bytes": 32 * 2**20,
    "publish_timeout_seconds": 30.0,
    "connect_timeout_seconds": 5.0,
    "close_timeout_seconds": 5.0,
    "check_interval_seconds": 5.0,
    "unavailable_after_seconds": 60.0,
    "lease_seconds": 15.0,
}
COUNTS = [
    "published",
    "delivered",
    "gaps",
    "retried",
    "reconnects",
    "orphaned",
    "pending_events",
    "pending_bytes",
    "subscribers",
    "topics",
    "connections",
]
METHODS = {
    "publish": "(run_id, event, data)",
    "publish_end": "(run_id, *, reason='done')",
    "subscribe": "(run_id, *, last_event_id=None, heartbeat_interval=15.0)",
    "stream_exists": "(run_id)",
    "end_reason": "(run_id)",
    "cleanup": "(run_id, *, delay=0)",
    "flush": "(run_id=None)",
    "stats": "()",
    "close": "()",
}


def test_every_keyword_has_its_default() -> None:
    assert dataclasses.asdict(StreamSettings()) == SHARED
    parameters = inspect.signature(RedisStreamBridge).parameters
    assert {name: given.default for name, given in parameters.items() if name != "options"} == REDIS
    assert all(given.kind is not given.POSITIONAL_OR_KEYWORD for given in parameters.values())
    for kind in (InMemoryStreamBridge, RedisStreamBridge):
        kind(**SHARED)  # type: ignore[arg-type]  # a mixed dict
        unknown: Any = {"queue_max_size": 5}
        with pytest.raises(TypeError, match="queue_max_size"):
            kind(**unknown)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_parameters(name: str) -> None:
    for kind in (StreamBridge, InMemoryStreamBridge, RedisStreamBridge):
        found = inspect.signature(getattr(kind, name))
        plain = [given.replace(annotation=given.empty) for given in list(found.parameters.values())[1:]]
        assert str(inspect.Signature(plain)) == METHODS[name]


def test_who_crosses_processes_says_so() -> None:
    assert not InMemoryStreamBridge.supports_cross_process
    assert RedisStreamBridge.supports_cross_process


@pytest.mark.parametrize(
    ("item", "fields"),
    [
        (StreamEvent("1-0", "n", None), ["id", "event", "data"]),
        (
            StreamGap(None, None, None),
            ["requested_event_id", "earliest_available_event_id", "latest_available_event_id"],
        ),
        (
            StreamStats(),
            COUNTS,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_items_are_frozen_and_have_these_fields(item: Any, fields: list[str]) -> None:
    assert [field.name for field in dataclasses.fields(item)] == fields
    for name in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, name, "other")


def test_the_sentinels_are_known_by_identity() -> None:
    assert StreamEvent("", "__heartbeat__", None) == HEARTBEAT_SENTINEL
    assert StreamEvent("", "__end__", None) == END_SENTINEL
    assert stream.HEARTBEAT_SENTINEL is HEARTBEAT_SENTINEL
    assert stream.END_SENTINEL is END_SENTINEL


def test_every_public_name_is_there() -> None:
    for name in stream.__all__:
        assert getattr(stream, name) is not None
    with pytest.raises(AttributeError, match="NoSuchBridge"):
        stream.NoSuchBridge  # noqa: B018  # that is the test


def test_the_redis_bridge_without_its_extra_names_it() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "import deerflow_replica.stream as stream\n"
        "from deerflow_replica.errors import MissingExtraError\n"
        "try: stream.RedisStreamBridge\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "deerflow-replica[redis]" in done.stdout


def test_making_a_bridge_reads_no_environment_and_touches_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "nonsense")
    assert RedisStreamBridge(redis_url="redis://name.invalid:1/0").stats() == StreamStats()
    assert InMemoryStreamBridge().stats() == StreamStats()


@pytest.mark.anyio
async def test_a_batch_comes_before_the_error_that_follows_it() -> None:
    bridge = InMemoryStreamBridge()
    feed = bridge.subscribe_batches("r")
    waiting = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0)
    for number in range(3):
        await bridge.publish("r", "n", number)
    await bridge.close()
    assert [item.data for item in await waiting if isinstance(item, StreamEvent)] == [0, 1, 2]
    with pytest.raises(StreamUnavailableError):
        await anext(feed)
