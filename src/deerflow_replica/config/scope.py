"""The package's only `ContextVar`: the configuration for code that no agent's runtime reaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import ContextError
from .app import AppConfig

_current: ContextVar[AppConfig] = ContextVar("deerflow_replica_app_config")


def init_app_config(config: AppConfig) -> None:
    """Set the configuration for this context: this task, and what it starts from now on."""
    _current.set(_checked(config))


def get_app_config() -> AppConfig:
    """The configuration of this context. `ContextError` if there is none: never a default, never a file."""
    try:
        return _current.get()
    except LookupError:
        raise ContextError(
            "no configuration in this context: pass context=DeerFlowContext(app_config=..., thread_id=...) to the "
            "agent, or enter app_config_scope(config), or call init_app_config(config) in this task"
        ) from None


@contextmanager
def app_config_scope(config: AppConfig) -> Iterator[AppConfig]:
    """Set the configuration inside a `with` block, and what was there before after it."""
    token = _current.set(_checked(config))
    try:
        yield config
    finally:
        _current.reset(token)


def _checked(config: AppConfig) -> AppConfig:
    if not isinstance(config, AppConfig):
        raise TypeError(f"an AppConfig is needed, not {type(config).__name__}")
    return config
