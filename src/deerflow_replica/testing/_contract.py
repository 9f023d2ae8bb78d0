"""What every contract suite has in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import pytest


class Contract:
    """Its coroutines run on asyncio through anyio's plugin, without any configuration."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"


async def for_one_of(times: Iterable[float], holds: Callable[[float], Awaitable[bool]]) -> bool:
    """Whether it holds for one of these times: a short one may be over before a busy machine has done its part."""
    for seconds in times:
        if await holds(seconds):
            return True
    return False
