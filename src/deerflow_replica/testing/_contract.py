"""What every contract suite has in common."""

from __future__ import annotations

import pytest


class Contract:
    """Its coroutines run on asyncio through anyio's plugin, without any configuration."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"
