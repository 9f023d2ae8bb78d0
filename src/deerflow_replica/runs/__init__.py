"""Runs: a graph executed in one replica, its events and its status seen on all of them."""

from __future__ import annotations

from .registry.base import RunRegistry
from .registry.records import RunRecord
from .request import Run
from .stream_run import RunResult, stream_run

__all__ = ["Run", "RunRecord", "RunRegistry", "RunResult", "stream_run"]
