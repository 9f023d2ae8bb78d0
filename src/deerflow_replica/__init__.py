"""Run LangGraph agents on more than one machine."""

from __future__ import annotations

from .config import AppConfig, app_config_scope, get_app_config, init_app_config
from .context import DeerFlowContext, resolve_context

__version__ = "0.1.0"
__all__ = [
    "AppConfig",
    "DeerFlowContext",
    "__version__",
    "app_config_scope",
    "get_app_config",
    "init_app_config",
    "resolve_context",
]
