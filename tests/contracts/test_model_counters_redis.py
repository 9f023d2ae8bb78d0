from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.counters import RedisModelCounters
from deerflow_replica.testing.counters import Build
from deerflow_replica.testing.counters_shared import SharedModelCountersContract


class TestRedisModelCounters(SharedModelCountersContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(RedisModelCounters, redis_url, key_prefix=key_prefix)
