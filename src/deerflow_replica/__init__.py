"""Run LangGraph agents on more than one machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import AppConfig, app_config_scope, get_app_config, init_app_config
from .context import DeerFlowContext, resolve_context
from .errors import ConfigError, ContextError, ReplicaError

if TYPE_CHECKING:
    from ._checks import CheckResult
    from .replica import Replica, open_replica
    from .runs import Run, stream_run
    from .stream import StreamBridge, StreamEvent, StreamGap, open_stream_bridge

__version__ = "0.1.0"
__all__ = [
    "AppConfig",
    "CheckResult",
    "ConfigError",
    "ContextError",
    "DeerFlowContext",
    "Replica",
    "ReplicaError",
    "Run",
    "StreamBridge",
    "StreamEvent",
    "StreamGap",
    "__version__",
    "app_config_scope",
    "get_app_config",
    "init_app_config",
    "open_replica",
    "open_stream_bridge",
    "resolve_context",
    "stream_run",
]


def __getattr__(name: str) -> Any:
    """What needs LangChain or more is imported when it is asked for."""
    home = _home_of(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home, __name__), name)


def _home_of(name: str) -> str | None:
    if name in {"CheckResult", "Replica", "open_replica"}:
        return ".replica"
    if name in {"Run", "stream_run"}:
        return ".runs"
    if name in {"StreamBridge", "StreamEvent", "StreamGap", "open_stream_bridge"}:
        return ".stream"
    return None
