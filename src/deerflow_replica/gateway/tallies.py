"""What one app counted since it began: plain numbers, which `metrics` exports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(slots=True)
class Tallies:
    """`requests` by method, route and status; the route is a template, so that their number is bounded."""

    events_sent: int = 0
    stream_gaps: int = 0
    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    def answered(self, method: str, route: str | None, status: int) -> None:
        """`route` is None for a path that is none of ours."""
        self.requests[method if method in _METHODS else "other", route or "unmatched", status] += 1
