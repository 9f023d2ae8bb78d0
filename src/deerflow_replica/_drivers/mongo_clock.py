"""The server's clock, told by ours: so replicas agree on the time, whatever their hosts think it is."""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mongodb import Client

_FIRST_LOOKS = 3
_LOOKS = 8
_SECONDS_BETWEEN = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ServerClock:
    """Never ahead of the server's: it told its time before we heard of it. The quickest of the last answers counts."""

    def __init__(self) -> None:
        self._offsets: deque[int] = deque(maxlen=_LOOKS)  # microseconds from our monotonic clock to the server's
        self._looked_at = 0.0

    async def now(self, client: Client) -> int:
        """Microseconds since 1970; asks the server now and then."""
        if not self._offsets or time.monotonic() - self._looked_at > _SECONDS_BETWEEN:
            for _ in range(1 if self._offsets else _FIRST_LOOKS):
                await self._look(client)
        return _monotonic() + max(self._offsets)

    async def _look(self, client: Client) -> None:
        told = (await client.admin.command("hello"))["localTime"]
        self._offsets.append((told.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) - _monotonic())
        self._looked_at = time.monotonic()


def _monotonic() -> int:
    return time.monotonic_ns() // 1000
