"""Middlewares for LangChain agents, each imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .counter import ModelCounterMiddleware
    from .memory import MemoryMiddleware
    from .ownership import ThreadOwnershipMiddleware

__all__ = ["MemoryMiddleware", "ModelCounterMiddleware", "ThreadOwnershipMiddleware"]


def __getattr__(name: str) -> Any:
    if name == "MemoryMiddleware":
        from .memory import MemoryMiddleware

        return MemoryMiddleware
    if name == "ModelCounterMiddleware":
        from .counter import ModelCounterMiddleware

        return ModelCounterMiddleware
    if name == "ThreadOwnershipMiddleware":
        from .ownership import ThreadOwnershipMiddleware

        return ThreadOwnershipMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
