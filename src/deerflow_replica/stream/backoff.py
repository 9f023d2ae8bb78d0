"""How long to wait before a server is asked again."""

from __future__ import annotations

import asyncio

_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.02, 0.5


class Backoff:
    """Longer after every failure, up to half a second."""

    def __init__(self) -> None:
        self._seconds = _SHORTEST_SECONDS

    def reset(self) -> None:
        self._seconds = _SHORTEST_SECONDS

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds)
        self._seconds = min(self._seconds * 2, _LONGEST_SECONDS)
