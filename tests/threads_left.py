"""Which threads a test has left, whatever module-wide fixtures of other tests keep."""

from __future__ import annotations

import threading
from collections.abc import Callable

NewThreads = Callable[[str], list[str]]
"""The names, with this text in them, of the threads that were not there when the test began."""


def new_threads_since_now() -> NewThreads:
    before = set(threading.enumerate())
    return lambda text: [thread.name for thread in set(threading.enumerate()) - before if text in thread.name]
