from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.stream import RedisStreamBridge
from deerflow_replica.testing.stream import Build, StreamBridgeContract


class TestRedisPipelined(StreamBridgeContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.5)


class TestRedisAcknowledged(StreamBridgeContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(
            RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.5, ack="server"
        )


class TestRedisBlockingReads(StreamBridgeContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(
            RedisStreamBridge, redis_url=redis_url, key_prefix=key_prefix, check_interval_seconds=0.5, push="xread"
        )


class TestRedisBlockingReadsAcknowledged(StreamBridgeContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(
            RedisStreamBridge,
            redis_url=redis_url,
            key_prefix=key_prefix,
            check_interval_seconds=0.5,
            push="xread",
            ack="server",
        )
