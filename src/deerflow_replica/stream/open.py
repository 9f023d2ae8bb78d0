"""The bridge that a configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ConfigProblem
from .base import StreamBridge, StreamSettings
from .inmemory import InMemoryStreamBridge

if TYPE_CHECKING:
    from ..config import AppConfig

_SHARED = tuple(StreamSettings.__dataclass_fields__)


@asynccontextmanager
async def open_stream_bridge(config: AppConfig) -> AsyncIterator[StreamBridge]:
    """Open the bridge of `config.stream_bridge` and close it at the end.

    Raises `StreamUnavailableError` if its server cannot be reached, `ConfigError` for values that cannot be meant.
    """
    from ..config.targets import problem_at

    bridge = _made(config.stream_bridge)
    if isinstance(bridge, ConfigProblem):
        raise problem_at(config, f"stream_bridge.{bridge.key}" if bridge.key else "stream_bridge", bridge.message)
    async with bridge:
        yield bridge


def _made(section: Any) -> StreamBridge | ConfigProblem:
    """Returned, not raised: the error that names the place has no other one behind it."""
    try:
        if section.type == "memory":
            return InMemoryStreamBridge(**_options(section, _SHARED))
        if section.type == "redis":
            from .redis import REDIS_OPTIONS, RedisStreamBridge

            return RedisStreamBridge(**_options(section, (*_SHARED, *REDIS_OPTIONS)))
    except ConfigError as error:
        return error.problems[0]
    return ConfigProblem("type", f"{section.type!r} is not a stream bridge: memory, redis")


def _options(section: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(section, name) for name in names if hasattr(section, name)}
