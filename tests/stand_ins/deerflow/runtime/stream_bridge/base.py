"""What a gateway and a worker of DeerFlow know of a bridge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StreamEvent:
    id: str
    event: str
    data: Any


@dataclass(frozen=True)
class StreamGap:
    requested_event_id: str | None
    earliest_available_event_id: str | None
    latest_available_event_id: str | None


HEARTBEAT_SENTINEL = StreamEvent("", "__heartbeat__", None)
END_SENTINEL = StreamEvent("", "__end__", None)


class StreamBridge(ABC):
    supports_cross_process: bool = False

    @abstractmethod
    async def publish(self, run_id: str, event: str, data: Any) -> None: ...

    @abstractmethod
    async def publish_end(self, run_id: str) -> None: ...

    @abstractmethod
    def subscribe(
        self, run_id: str, *, last_event_id: str | None = None, heartbeat_interval: float = 15.0
    ) -> AsyncIterator[StreamEvent | StreamGap]: ...

    @abstractmethod
    async def cleanup(self, run_id: str, *, delay: float = 0) -> None: ...

    async def close(self) -> None:  # noqa: B027  # DeerFlow's does nothing by default
        pass
