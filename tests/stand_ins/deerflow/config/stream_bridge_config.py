"""The section, and the global one that `make_stream_bridge()` falls back to."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class StreamBridgeConfig(BaseModel):
    type: Literal["memory", "redis"] = "memory"
    redis_url: str | None = None
    queue_maxsize: int = 256
    heartbeat_interval_seconds: float = 15.0
    max_connections: int | None = None
    stream_ttl_seconds: int = 86400
    recovered_stream_cleanup_delay_seconds: float = 60.0


_current: list[StreamBridgeConfig] = []


def get_stream_bridge_config() -> StreamBridgeConfig | None:
    return _current[-1] if _current else None


def set_stream_bridge_config(config: StreamBridgeConfig | None) -> None:
    _current[:] = [] if config is None else [config]
