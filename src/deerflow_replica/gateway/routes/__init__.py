"""The route table."""

from __future__ import annotations

from ..endpoint import Endpoint
from . import assistants, runs, states, streams, system, threads

ENDPOINTS: tuple[Endpoint, ...] = (
    *system.ENDPOINTS,
    *assistants.ENDPOINTS,
    *threads.ENDPOINTS,
    *states.ENDPOINTS,
    *streams.ENDPOINTS,
    *runs.ENDPOINTS,
)
