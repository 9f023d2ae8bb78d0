from __future__ import annotations

import pytest

from deerflow_replica.counters import InMemoryModelCounters
from deerflow_replica.testing.counters import Build, ModelCountersContract


class TestInMemoryModelCounters(ModelCountersContract):
    @pytest.fixture
    def build(self) -> Build:
        return InMemoryModelCounters
