"""What an agent's run is given: its configuration and whose run it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

from .config import AppConfig, get_app_config
from .errors import ContextError

_HOW = (
    "pass context=DeerFlowContext(app_config=config, thread_id='...') to the run, or set the configuration with "
    "app_config_scope(config) and the thread with config={'configurable': {'thread_id': '...'}}"
)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_MISSING = object()


@dataclass(frozen=True)
class DeerFlowContext:
    """The context of one run. Checks itself: `ContextError`. A `UUID` as `thread_id` or `run_id` becomes text."""

    app_config: AppConfig
    thread_id: str
    agent_name: str | None = None
    user_id: str | None = None
    run_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("thread_id", "run_id"):
            if isinstance(getattr(self, name), UUID):
                object.__setattr__(self, name, str(getattr(self, name)))
        _check(self.app_config, self.thread_id)
        for name in ("agent_name", "user_id", "run_id"):
            if not isinstance(getattr(self, name), str | None):
                raise ContextError(f"{name} should be a text or None, not {type(getattr(self, name)).__name__}")


def _check(app_config: Any, thread_id: Any) -> None:
    if not isinstance(app_config, AppConfig):
        raise ContextError(f"app_config should be an AppConfig, not {type(app_config).__name__}; {_HOW}")
    if not isinstance(thread_id, str) or not thread_id.strip():
        raise ContextError(f"thread_id should be a text that is not blank; {_HOW}")


def resolve_context(runtime: Any) -> DeerFlowContext:
    """The context of a run, from the `Runtime` or `ToolRuntime` that a hook or tool is given.

    A `DeerFlowContext` is returned as it is. A mapping is validated. None falls back to the current `AppConfig` and
    to the run's `configurable` and `execution_info`. Anything else, or no configuration or thread: `ContextError`.
    """
    context = getattr(runtime, "context", _MISSING)
    if isinstance(context, DeerFlowContext):
        return context
    if context is _MISSING:
        raise ContextError(f"a Runtime or ToolRuntime is needed, not {type(runtime).__name__}; {_HOW}")
    if context is None or isinstance(context, Mapping):
        return _from_run(runtime, _NOTHING if context is None else context)
    raise ContextError(f"the run's context should be a DeerFlowContext, not {type(context).__name__}; {_HOW}")


def _from_run(runtime: Any, given: Mapping[str, Any]) -> DeerFlowContext:
    configurable = _configurable(runtime)
    execution = getattr(runtime, "execution_info", None)
    return DeerFlowContext(
        app_config=_app_config(given.get("app_config")),
        thread_id=_first(given.get("thread_id"), configurable.get("thread_id"), getattr(execution, "thread_id", None)),
        agent_name=_first(given.get("agent_name"), configurable.get("agent_name")),
        user_id=_user_id(runtime, configurable, given),
        run_id=_first(given.get("run_id"), configurable.get("run_id"), getattr(execution, "run_id", None)),
    )


def _app_config(given: Any) -> Any:
    if given is not None:
        return given
    try:
        return get_app_config()
    except ContextError:
        raise ContextError(f"no configuration in the run's context; {_HOW}") from None


def _user_id(runtime: Any, configurable: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Who the server authenticated. A `user_id` in `configurable` is only the client's word and is not asked.

    A server that says None there has asked nobody, and then the context, which may be the client's too, is not asked.
    """
    user = getattr(getattr(runtime, "server_info", None), "user", None)
    said = _first(getattr(user, "identity", None), configurable.get("langgraph_auth_user_id"))
    return given.get("user_id") if said is None and "langgraph_auth_user_id" not in configurable else said


def _first(*candidates: Any) -> Any:
    return next((candidate for candidate in candidates if candidate is not None), None)


def _configurable(runtime: Any) -> Mapping[str, Any]:
    config = getattr(runtime, "config", None)
    if not isinstance(config, Mapping):
        config = _current_run_config()
    found = config.get("configurable")
    return found if isinstance(found, Mapping) else _NOTHING


def _current_run_config() -> Mapping[str, Any]:
    from langgraph.config import get_config

    try:
        return get_config()
    except RuntimeError:  # outside a run
        return _NOTHING
