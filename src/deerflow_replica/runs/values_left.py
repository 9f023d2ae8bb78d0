"""What a run left in its thread's state, however it ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from langgraph.types import StateSnapshot

from .registry.documents import to_json

_LOG = logging.getLogger(__name__)


async def values_left(graph: Any, config: Mapping[str, Any], run_id: str) -> Any:
    """The values that the run's thread has now, as its row keeps them."""
    state = await head_of(graph, config)
    return None if state is None else row_values(state.values, run_id)


async def head_of(graph: Any, config: Mapping[str, Any]) -> StateSnapshot | None:
    """The newest state of the run's thread; None: there is none, or nothing stores it."""
    if not getattr(graph, "checkpointer", None):
        return None
    where = {key: value for key, value in config.get("configurable", {}).items() if key != "checkpoint_id"}
    state: StateSnapshot = await graph.aget_state({"configurable": where})
    return state if state.created_at else None


def row_values(values: Any, run_id: str) -> Any:
    """What the thread's row keeps. State without a JSON form is not an error of the run: nobody asked to see it."""
    try:
        to_json(values)
    except TypeError as error:
        _LOG.warning("run %s: the thread's row keeps no values: %s", run_id, error)
        return None
    return values
