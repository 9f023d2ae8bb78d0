"""The fixtures that the parts of `ModelCountersContract` share."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import pytest

from ..counters.base import ModelCounters
from ..counters.values import ModelTotals
from ._contract import Contract

Build: TypeAlias = Callable[..., ModelCounters]

VOTER = {"thread_id": "t", "run_id": "r", "user_id": "u"}


class CountersFixtures(Contract):
    @pytest.fixture
    def build(self) -> Build:
        """A function that makes one more replica's counters (not opened) of its keywords."""
        raise NotImplementedError("override the fixture `build`")

    @pytest.fixture
    async def counters(self, build: Build) -> AsyncIterator[ModelCounters]:
        async with build(flush_interval_seconds=3600) as counters:
            yield counters


def numbers(totals: ModelTotals) -> dict[str, int]:
    """The plain counts that are not zero."""
    fields = {field.name: getattr(totals, field.name) for field in dataclasses.fields(totals)}
    return {name: value for name, value in fields.items() if type(value) is int and value}
