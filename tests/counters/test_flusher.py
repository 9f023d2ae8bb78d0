"""The thread that writes counts."""

from __future__ import annotations

import math
import threading

import pytest

from deerflow_replica.counters._flusher import Flusher


class _Owner:
    def __init__(self) -> None:
        self.flushed = threading.Event()

    def flush(self) -> None:
        self.flushed.set()


@pytest.mark.parametrize("seconds", [1e12, math.inf])
def test_an_interval_without_end_leaves_the_thread_to_be_woken(seconds: float) -> None:
    owner, wake = _Owner(), threading.Event()
    flusher = Flusher(owner.flush, wake=wake, interval_seconds=seconds, name="test", failure="could not be written")
    flusher.start()
    try:
        wake.set()
        assert owner.flushed.wait(30)
        assert flusher.is_running
    finally:
        flusher.stop()
        flusher.join()
