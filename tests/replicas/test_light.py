"""A replica without any server is light: nothing but a moment, and no thread."""

from __future__ import annotations

import math
import threading
import time

import pytest

from deerflow_replica.config import AppConfig
from deerflow_replica.replica import open_replica

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 0.02  # of processor time


async def test_open_and_close_in_memory_take_a_moment_and_leave_no_thread() -> None:
    config = AppConfig.from_mapping({"database": {"backend": "memory"}})
    seconds = [math.inf]
    before = set(threading.enumerate())
    # The first imports; the best of the others is what it costs, whatever else the machine does.
    while min(seconds) >= LIMIT_SECONDS and len(seconds) < 100:
        began = time.process_time()
        async with open_replica(config) as replica:
            assert set(threading.enumerate()) == before
        seconds.append(time.process_time() - began)
        assert set(threading.enumerate()) == before, replica
    assert min(seconds) < LIMIT_SECONDS
