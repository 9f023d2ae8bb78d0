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

    if config.stream_bridge.type == "redis" and config.stream_bridge.push == "xread":
        raise problem_at(config, "stream_bridge.push", "xread is not available yet: pubsub")
    try:
        bridge = _made(config.stream_bridge)
    except ConfigError as error:
        ours = error.problems[0]
        raise problem_at(config, f"stream_bridge.{ours.key}" if ours.key else "stream_bridge", ours.message) from None
    async with bridge:
        yield bridge


def _made(section: Any) -> StreamBridge:
    if section.type == "memory":
        return InMemoryStreamBridge(**_options(section, _SHARED))
    if section.type == "redis":
        from .redis import REDIS_OPTIONS, RedisStreamBridge

        return RedisStreamBridge(**_options(section, (*_SHARED, *REDIS_OPTIONS)))
    raise ConfigError(ConfigProblem("type", f"{section.type!r} is not a stream bridge: memory, redis"))


def _options(section: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(section, name) for name in names if hasattr(section, name)}
