from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.testing.threads import Build, ThreadMapContract
from deerflow_replica.threads import RedisThreadMap


class TestRedisThreadMap(ThreadMapContract):
    @pytest.fixture
    def build(self, redis_url: str, key_prefix: str) -> Build:
        return partial(RedisThreadMap, redis_url, key_prefix=key_prefix)
