"""What `ModelHealth` is given, checked: each check raises `ValueError`."""

from __future__ import annotations

import math
from collections.abc import Mapping


def check_health_settings(
    *,
    counts: Mapping[str, int],
    durations: Mapping[str, float],
    failure_rate: float,
    jitter: float,
    window_seconds: float,
) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is at least 1")
    for name, seconds in durations.items():
        if not 0 < seconds < math.inf:
            raise ValueError(f"{name} is a finite number of seconds, more than 0")
    if not 0 < failure_rate <= 1:
        raise ValueError("failure_rate is more than 0, at most 1")
    if not 0 <= jitter <= 1:
        raise ValueError("jitter lies between 0 and 1")
    if not 10 <= window_seconds <= 900:
        raise ValueError("window_seconds lies between 10 and 900")
