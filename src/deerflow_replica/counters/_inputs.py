"""What callers pass in, checked before anything is counted: each check raises `ValueError`."""

from __future__ import annotations

from collections.abc import Mapping

from ._ledger import LARGEST_COUNT

_SENTIMENTS = {"positive": 1, "negative": -1, None: None}


def check_settings(durability: str, flush_interval_seconds: float, flush_max_events: int, max_models: int) -> None:
    if durability not in ("batched", "sync"):
        raise ValueError(f"durability is 'batched' or 'sync', not {durability!r}")
    if not flush_interval_seconds > 0:
        raise ValueError("flush_interval_seconds is more than 0")
    if flush_max_events < 1 or max_models < 1:
        raise ValueError("flush_max_events and max_models are at least 1")


def check_deltas(deltas: Mapping[str, int]) -> None:
    for name, delta in deltas.items():
        if type(delta) is not int or not 0 <= delta <= LARGEST_COUNT:
            raise ValueError(f"{name} is an integer from 0 to 2**63 - 1")


def check_keys(*keys: object) -> None:
    for key in keys:
        if not isinstance(key, str) or not key:
            raise ValueError(f"thread_id, run_id and user_id are strings that are not empty, not {key!r}")


def checked_sentiment(sentiment: str | None) -> int | None:
    """As it is stored."""
    if sentiment not in _SENTIMENTS:
        raise ValueError(f"a sentiment is 'positive', 'negative' or None, not {sentiment!r}")
    return _SENTIMENTS[sentiment]
