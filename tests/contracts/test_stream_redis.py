from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from deerflow_replica.stream import RedisStreamBridge
from deerflow_replica.testing.stream import Build, StreamBridgeContract

# A machine that is busy is not away.
PATIENT: dict[str, Any] = {"connect_timeout_seconds": 60.0, "close_timeout_seconds": 60.0}


class TestRedisPipelined(StreamBridgeContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(
            RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.5, **PATIENT
        )


class TestRedisAcknowledged(StreamBridgeContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(
            RedisStreamBridge,
            redis_url=redis_url,
            key_prefix=key_prefix,
            check_interval_seconds=0.5,
            **PATIENT,
            ack="server",
        )


class TestRedisBlockingReads(StreamBridgeContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(
            RedisStreamBridge,
            redis_url=redis_url,
            key_prefix=key_prefix,
            check_interval_seconds=0.5,
            **PATIENT,
            push="xread",
        )


class TestRedisBlockingReadsAcknowledged(StreamBridgeContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(
            RedisStreamBridge,
            redis_url=redis_url,
            key_prefix=key_prefix,
            check_interval_seconds=0.5,
            **PATIENT,
            push="xread",
            ack="server",
        )
