"""The thread that writes counts."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deerflow_replica.counters._flusher import Flusher
from deerflow_replica.errors import StoreUnavailableError
from waiting import eventually_sync


class _Owner:
    """Fails as it is told, then does it."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.flushed = threading.Event()

    def flush(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.flushed.set()


@contextmanager
def running(owner: _Owner, wake: threading.Event, seconds: float) -> Iterator[Flusher]:
    flusher = Flusher(owner.flush, wake=wake, interval_seconds=seconds, name="test", failure="could not be written")
    flusher.start()
    try:
        yield flusher
    finally:
        flusher.stop()
        flusher.join()


@pytest.mark.parametrize("seconds", [1e12, math.inf])
def test_an_interval_without_end_leaves_the_thread_to_be_woken(seconds: float) -> None:
    owner, wake = _Owner(), threading.Event()
    with running(owner, wake, seconds) as flusher:
        wake.set()
        assert owner.flushed.wait(30)
        assert flusher.is_running


def test_an_error_that_stays_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    away, odd = StoreUnavailableError("away"), RuntimeError("odd")
    owner = _Owner(away, away, odd, odd, ValueError("another"), odd, away, away)
    with caplog.at_level(logging.WARNING), running(owner, threading.Event(), 0.001):
        assert owner.flushed.wait(30)
        owner.flushed.clear()
        owner.failures.append(odd)
        assert owner.flushed.wait(30), "it goes on"
        eventually_sync(lambda: len(caplog.records) == 6)
    said = [record.exc_info[1] if record.exc_info else record.getMessage() for record in caplog.records]
    assert [str(one) for one in said] == [
        "could not be written: away",
        "odd",
        "another",
        "odd",
        "could not be written: away",
        "odd",
    ]
