"""What `ModelHealth` is given, checked: each check raises `ValueError`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import get_args

from .values import ReleaseOutcome

_LONGEST_RETRY_AFTER_SECONDS = 86400.0  # whatever a server says: after a day it is asked again


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


def check_outcome(outcome: str) -> None:
    if outcome not in get_args(ReleaseOutcome):
        raise ValueError(f"a permit is released with {', '.join(get_args(ReleaseOutcome))}, not {outcome!r}")


def checked_names(models: Iterable[str]) -> list[str]:
    names = list(models)
    if not names:
        raise ValueError("choose from at least one model")
    return names


def retry_after(seconds: object) -> float | None:
    """None where a server said nothing that can be meant."""
    if isinstance(seconds, (int, float)) and 0 <= seconds < math.inf:
        return float(min(seconds, _LONGEST_RETRY_AFTER_SECONDS))
    return None
