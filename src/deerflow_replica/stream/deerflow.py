"""Our bridges in DeerFlow's gateway, in the place of its own: one import there is all that changes.

    from deerflow_replica.stream.deerflow import make_stream_bridge

    app.state.stream_bridge = await stack.enter_async_context(make_stream_bridge(config))

Runs are stored as DeerFlow's own Redis bridge stores them, so gateways with and without it share one Redis during a
roll-out. DeerFlow is imported when one of the two names is used, not before.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .._extras import deerflow
from ..config import StreamBridgeConfig
from ..errors import ConfigError, ConfigProblem
from .open import _made

if TYPE_CHECKING:
    from .deerflow_bridge import DeerFlowStreamBridge

__all__ = ["DeerFlowStreamBridge", "make_stream_bridge"]

_URL_VARIABLES = ("DEER_FLOW_STREAM_BRIDGE_REDIS_URL", "REDIS_URL")


def __getattr__(name: str) -> Any:
    if name == "DeerFlowStreamBridge":
        from .deerflow_bridge import DeerFlowStreamBridge

        return DeerFlowStreamBridge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@asynccontextmanager
async def make_stream_bridge(app_config: object = None) -> AsyncIterator[DeerFlowStreamBridge]:
    """The bridge of DeerFlow's configuration, open; closed at the end. Without one, that of its global section.

    Reads what DeerFlow reads: every field of `app_config.stream_bridge`, and where there is no section or no URL, the
    environment (`DEER_FLOW_STREAM_BRIDGE_REDIS_URL`, `REDIS_URL`). Fields of ours that the section has hold too.
    It decides as DeerFlow's bridges do where it has the choice: a malformed cursor gets what comes next, a cursor
    whose own event is gone gets a gap, a reader may lag `queue_maxsize` events.
    Raises `MissingExtraError` where DeerFlow is not importable, `ConfigError` for values that cannot be meant and
    `StreamUnavailableError` if Redis cannot be reached.
    """
    from .deerflow_bridge import DeerFlowStreamBridge

    settings = _settings(_section(app_config))
    made = _made(settings)
    if isinstance(made, ConfigProblem):
        raise ConfigError(replace(made, key=f"stream_bridge.{made.key}" if made.key else "stream_bridge"))
    async with made:
        yield DeerFlowStreamBridge(made, heartbeat_interval=settings.heartbeat_interval_seconds)


def _section(app_config: object) -> Any:
    if app_config is not None:
        return getattr(app_config, "stream_bridge", None)
    with deerflow():
        from deerflow.config.stream_bridge_config import get_stream_bridge_config
    return get_stream_bridge_config()


def _settings(section: Any) -> SimpleNamespace:
    """The section's fields, and for those that it does not have DeerFlow's defaults and choices."""
    given = {name: getattr(section, name) for name in StreamBridgeConfig.model_fields if hasattr(section, name)}
    url = given.get("redis_url") or _url(_URL_VARIABLES if section is not None else _URL_VARIABLES[:1])
    kind = "redis" if section is None and url else "memory"
    settings: dict[str, Any] = {"type": kind, "queue_maxsize": 256, "heartbeat_interval_seconds": 15.0, **given}
    settings["redis_url"] = url
    settings["queue_maxsize"] = max(1, settings["queue_maxsize"])  # as DeerFlow's bridges do
    choices = {"invalid_cursor": "tail", "resume_gap": "strict", "live_window": settings["queue_maxsize"]}
    return SimpleNamespace(**settings | {name: value for name, value in choices.items() if not _sets(section, name)})


def _sets(section: Any, name: str) -> bool:
    """Whether it was written there, not only a default of the section's class."""
    return name in getattr(section, "model_fields_set", vars(section) if section is not None else ())


def _url(variables: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in variables if os.environ.get(name)), None)
