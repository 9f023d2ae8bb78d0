"""This host's clock, for the backends whose store has none of its own."""

from __future__ import annotations

import time


def microseconds() -> int:
    """Whole microseconds since 1970, UTC."""
    return time.time_ns() // 1000
