"""The stream bridge: a run's events, written in one process and read in any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import (
    END_SENTINEL,
    HEARTBEAT_SENTINEL,
    StreamBridge,
    StreamEvent,
    StreamGap,
    StreamItem,
    StreamStats,
)
from .inmemory import InMemoryStreamBridge
from .open import open_stream_bridge
from .payload import encode_payload
from .sse import encode_sse, parse_last_event_id

if TYPE_CHECKING:
    from .redis import RedisStreamBridge

__all__ = [
    "END_SENTINEL",
    "HEARTBEAT_SENTINEL",
    "InMemoryStreamBridge",
    "RedisStreamBridge",
    "StreamBridge",
    "StreamEvent",
    "StreamGap",
    "StreamItem",
    "StreamStats",
    "encode_payload",
    "encode_sse",
    "open_stream_bridge",
    "parse_last_event_id",
]


def __getattr__(name: str) -> Any:
    if name == "RedisStreamBridge":
        from .redis import RedisStreamBridge

        return RedisStreamBridge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
