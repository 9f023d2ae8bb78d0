"""Every way in which events reach a reader: a fault must be survived by each."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["pubsub", "xread"])
def push(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode
