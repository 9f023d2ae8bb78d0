"""`make_stream_bridge` from DeerFlow's own configuration, and what importing it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from deerflow_replica.config import AppConfig
from deerflow_replica.errors import ConfigError, MissingExtraError, StreamUnavailableError
from deerflow_replica.stream import InMemoryStreamBridge, RedisStreamBridge
from deerflow_replica.stream.deerflow import make_stream_bridge

from .conftest import Make

pytestmark = pytest.mark.anyio
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def section(deerflow: Any) -> Any:
    """DeerFlow's class of the section."""
    return importlib.import_module("deerflow.config.stream_bridge_config").StreamBridgeConfig


async def test_no_configuration_is_the_bridge_of_one_process(deerflow: Any) -> None:
    async with make_stream_bridge() as bridge:
        assert isinstance(bridge.bridge, InMemoryStreamBridge)
        assert isinstance(bridge, deerflow.StreamBridge)
        assert (bridge.supports_cross_process, bridge.heartbeat_interval) == (False, 15.0)


async def test_the_global_section_holds_without_an_argument(section: Any) -> None:
    module = importlib.import_module("deerflow.config.stream_bridge_config")
    module.set_stream_bridge_config(section(heartbeat_interval_seconds=2.5))
    async with make_stream_bridge() as bridge:
        assert bridge.heartbeat_interval == 2.5


async def test_every_field_of_deerflows_section_holds(section: Any, redis_url: str) -> None:
    given = section(
        type="redis",
        redis_url=redis_url,
        queue_maxsize=3,
        heartbeat_interval_seconds=2.5,
        max_connections=7,
        stream_ttl_seconds=42,
    )
    async with make_stream_bridge(SimpleNamespace(stream_bridge=given)) as bridge:
        assert isinstance(bridge.bridge, RedisStreamBridge)
        assert (bridge.supports_cross_process, bridge.heartbeat_interval) == (True, 2.5)
        settings = bridge.bridge._settings
        assert (settings.queue_maxsize, settings.stream_ttl_seconds) == (3, 42)
        assert (settings.invalid_cursor, settings.resume_gap, settings.live_window) == ("tail", "strict", 3)


async def test_connections_below_what_a_bridge_needs_are_refused_by_their_key(section: Any, redis_url: str) -> None:
    given = section(type="redis", redis_url=redis_url, max_connections=1)
    with pytest.raises(ConfigError, match=r"stream_bridge.*max_connections"):
        async with make_stream_bridge(SimpleNamespace(stream_bridge=given)):
            pass


async def test_what_our_own_configuration_says_wins_over_deerflows_choices(deerflow: Any) -> None:
    written = {"invalid_cursor": "replay", "resume_gap": "exact", "live_window": 77, "max_event_bytes": 10}
    async with (
        make_stream_bridge(AppConfig.from_mapping({"stream_bridge": written}, env={})) as chosen,
        make_stream_bridge(AppConfig()) as unsaid,
    ):
        settings = chosen.bridge._settings
        assert (settings.invalid_cursor, settings.resume_gap) == ("replay", "exact")
        assert (settings.live_window, settings.max_event_bytes) == (77, 10)
        assert (unsaid.bridge._settings.invalid_cursor, unsaid.bridge._settings.resume_gap) == ("tail", "strict")


@pytest.mark.parametrize("has_section", [True, False])
@pytest.mark.parametrize("variable", ["DEER_FLOW_STREAM_BRIDGE_REDIS_URL", "REDIS_URL"])
async def test_the_url_of_the_environment(
    section: Any, monkeypatch: pytest.MonkeyPatch, redis_url: str, variable: str, *, has_section: bool
) -> None:
    """Where there is no section DeerFlow's own variable makes one; `REDIS_URL` is somebody else's then."""
    monkeypatch.setenv(variable, redis_url)
    given = section(type="redis") if has_section else None
    async with make_stream_bridge(SimpleNamespace(stream_bridge=given)) as bridge:
        assert bridge.supports_cross_process == (has_section or variable.startswith("DEER_FLOW"))


async def test_an_unknown_type_names_its_key(deerflow: Any) -> None:
    with pytest.raises(ConfigError, match=r"stream_bridge\.type.*'kafka'"):
        async with make_stream_bridge(SimpleNamespace(stream_bridge=SimpleNamespace(type="kafka"))):
            pass


async def test_a_server_that_is_away_is_told_at_the_start(section: Any) -> None:
    given = section(type="redis", redis_url=NOWHERE)
    with pytest.raises(StreamUnavailableError):
        async with make_stream_bridge(SimpleNamespace(stream_bridge=given)):
            pass


async def test_the_readiness_probe_gets_an_answer(make: Make) -> None:
    bridge = await make()
    assert await bridge.ping() is True
    await bridge.close()
    assert await bridge.ping() is False


async def test_a_bridge_made_by_hand(deerflow: Any) -> None:
    module: Any = importlib.import_module("deerflow_replica.stream.deerflow")
    async with InMemoryStreamBridge() as ours:
        bridge = module.DeerFlowStreamBridge(ours)
        assert isinstance(bridge, deerflow.StreamBridge)
        assert bridge.bridge is ours
        await bridge.close()
        with pytest.raises(StreamUnavailableError):
            await bridge.publish("r", "values", {})


async def test_the_streams_key_and_its_life_are_deerflows(section: Any, redis_url: str, key_prefix: str) -> None:
    import redis

    run_id = key_prefix.replace(":", "-")
    client: Any
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for seconds in (42, 0):
            given = section(type="redis", redis_url=redis_url, queue_maxsize=2, stream_ttl_seconds=seconds)
            async with make_stream_bridge(SimpleNamespace(stream_bridge=given)) as bridge:
                for number in range(6):
                    await bridge.publish(run_id, "values", number)
                await bridge.publish_end(run_id)
                key = f"deerflow:stream_bridge:{run_id}"
                kept = [fields["kind"] for _, fields in client.xrange(key)]
                assert kept == ["event", "event", "end"]
                left = client.ttl(key)
                assert 34 <= left <= 42 if seconds else left == -1
                await bridge.cleanup(run_id)
                assert not client.exists(key)


async def test_without_deerflow_the_error_says_what_to_do(without_deerflow: None) -> None:
    module: Any = importlib.import_module("deerflow_replica.stream.deerflow")
    with pytest.raises(MissingExtraError, match="pip install 'deerflow-harness @ git"):
        async with make_stream_bridge(AppConfig()):
            pass
    with pytest.raises(MissingExtraError, match="DeerFlow is not importable here"):
        _ = module.DeerFlowStreamBridge


async def test_a_deerflow_that_knows_no_gap_is_told_so(deerflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(deerflow, "StreamGap")
    with pytest.raises(MissingExtraError, match=r"too old.*StreamGap"):
        async with make_stream_bridge(AppConfig()):
            pass


def test_importing_the_drop_in_imports_neither_deerflow_nor_a_driver() -> None:
    code = (
        "import sys, deerflow_replica.stream.deerflow as module\n"
        "print(sorted({'deerflow', 'redis'} & sys.modules.keys()), callable(module.make_stream_bridge))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"
