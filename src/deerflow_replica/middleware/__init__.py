"""Middlewares for LangChain agents, each imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callback import ModelCounterCallback
    from .counter import ModelCounterMiddleware
    from .memory import MemoryMiddleware
    from .ownership import ThreadOwnershipMiddleware
    from .routing import ModelRoutingMiddleware

__all__ = [
    "MemoryMiddleware",
    "ModelCounterCallback",
    "ModelCounterMiddleware",
    "ModelRoutingMiddleware",
    "ThreadOwnershipMiddleware",
]


def __getattr__(name: str) -> Any:
    if name == "MemoryMiddleware":
        from .memory import MemoryMiddleware

        return MemoryMiddleware
    if name == "ModelCounterCallback":
        from .callback import ModelCounterCallback

        return ModelCounterCallback
    if name == "ModelCounterMiddleware":
        from .counter import ModelCounterMiddleware

        return ModelCounterMiddleware
    if name == "ModelRoutingMiddleware":
        from .routing import ModelRoutingMiddleware

        return ModelRoutingMiddleware
    if name == "ThreadOwnershipMiddleware":
        from .ownership import ThreadOwnershipMiddleware

        return ThreadOwnershipMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
