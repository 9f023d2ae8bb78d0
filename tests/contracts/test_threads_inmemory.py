from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.testing.threads import Build, ThreadMapContract
from deerflow_replica.threads import InMemoryThreadMap


class TestInMemoryThreadMap(ThreadMapContract):
    @pytest.fixture
    def build(self) -> Build:
        return partial(InMemoryThreadMap, _beside=InMemoryThreadMap())
