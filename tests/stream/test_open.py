"""The bridge that a configuration names, and what importing costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from deerflow_replica.config import AppConfig, StreamBridgeConfig
from deerflow_replica.errors import ConfigError
from deerflow_replica.stream import InMemoryStreamBridge, RedisStreamBridge, open_stream_bridge
from deerflow_replica.stream.base import StreamSettings
from deerflow_replica.stream.redis import REDIS_OPTIONS
from deerflow_replica.testing._stream_common import numbers, publish_all, read

pytestmark = pytest.mark.anyio


async def test_the_default_is_in_process() -> None:
    async with open_stream_bridge(AppConfig()) as bridge:
        assert isinstance(bridge, InMemoryStreamBridge)
        assert not bridge.supports_cross_process
        await publish_all(bridge, "r", 2, end=True)
        assert numbers(await read(bridge, "r")) == [0, 1]


@pytest.mark.parametrize("push", ["pubsub", "xread"])
async def test_redis_with_the_options_of_the_section(redis_url: str, key_prefix: str, push: str) -> None:
    place = {"type": "redis", "redis_url": redis_url, "key_prefix": key_prefix}
    section = {**place, "queue_maxsize": 3, "ack": "server", "push": push}
    async with open_stream_bridge(AppConfig.from_mapping({"stream_bridge": section})) as bridge:
        assert isinstance(bridge, RedisStreamBridge)
        assert bridge.supports_cross_process
        await publish_all(bridge, "r", 5, end=True)
        assert numbers(await read(bridge, "r")) == [2, 3, 4]


def test_every_field_of_the_section_is_a_keyword_of_the_bridge_with_the_same_default() -> None:
    elsewhere = {"type", "recovered_stream_cleanup_delay_seconds", "heartbeat_interval_seconds"}
    fields = {name: field.default for name, field in StreamBridgeConfig.model_fields.items() if name not in elsewhere}
    taken = inspect.signature(RedisStreamBridge).parameters
    shared = StreamSettings.__dataclass_fields__
    assert fields.keys() == {*REDIS_OPTIONS, *shared}
    for name, default in fields.items():
        assert default == (shared[name].default if name in shared else taken[name].default), name


async def test_a_url_that_cannot_be_read_is_not_quoted_behind_the_error() -> None:
    section = {"type": "redis", "redis_url": "redis://:geh/eim@h:6379/0"}
    with pytest.raises(ConfigError, match=r"redis://:\*\*\*@h:6379/0") as raised:
        async with open_stream_bridge(AppConfig.from_mapping({"stream_bridge": section}, env={})):
            pass
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


def test_importing_the_capability_imports_no_driver() -> None:
    code = "import sys, deerflow_replica.stream; print(sorted({'redis', 'starlette', 'psycopg'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
