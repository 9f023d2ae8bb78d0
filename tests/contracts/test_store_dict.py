from __future__ import annotations

from functools import partial

import pytest

from deerflow_replica.testing.store import BuildStore, StoreContract
from dict_store import DictStore, Shared


class TestDictStore(StoreContract):
    @pytest.fixture
    def build(self) -> BuildStore:
        return partial(DictStore, Shared())
