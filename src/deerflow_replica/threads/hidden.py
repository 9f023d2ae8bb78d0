"""The mark of a run whose thread must not be found: who serves it has checked whose it is, and nobody claims it."""

from __future__ import annotations

HIDDEN_THREAD = "__deerflow_hidden_thread"
"""The key of a run's `configurable` that holds the thread's id. Only servers set keys that begin with `__`."""


def is_hidden(thread_id: str) -> bool:
    """Whether the current run executes on this thread, and the thread is hidden."""
    from langgraph.config import get_config

    try:
        configurable = get_config().get("configurable") or {}
    except RuntimeError:  # outside a run
        return False
    return configurable.get(HIDDEN_THREAD) == thread_id
