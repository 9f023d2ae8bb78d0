from __future__ import annotations

import pytest

from deerflow_replica.stream import InMemoryStreamBridge
from deerflow_replica.testing.stream import Build, StreamBridgeContract


class TestInMemoryStreamBridge(StreamBridgeContract):
    @pytest.fixture
    def build(self) -> Build:
        return InMemoryStreamBridge
