"""The route table."""

from __future__ import annotations

from ..endpoint import Endpoint
from . import assistants, copying, runs, schemas, states, store, streams, system, threads

ENDPOINTS: tuple[Endpoint, ...] = (
    *system.ENDPOINTS,
    *assistants.ENDPOINTS,
    *schemas.ENDPOINTS,
    *store.ENDPOINTS,
    *threads.ENDPOINTS,
    *states.ENDPOINTS,
    *copying.ENDPOINTS,
    *streams.ENDPOINTS,
    *runs.ENDPOINTS,
)
