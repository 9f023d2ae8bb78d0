"""Middlewares for LangChain agents, each imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ownership import ThreadOwnershipMiddleware

__all__ = ["ThreadOwnershipMiddleware"]


def __getattr__(name: str) -> Any:
    if name == "ThreadOwnershipMiddleware":
        from .ownership import ThreadOwnershipMiddleware

        return ThreadOwnershipMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
