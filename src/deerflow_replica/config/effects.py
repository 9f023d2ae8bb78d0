"""When a changed value takes effect: what whoever deploys it must do."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from .provenance import Path

TakesEffect = Literal["next-run", "rebuild", "restart"]
"""By itself at the next run that is given the new configuration; with a new agent; with a new replica."""

_EFFECTS: Mapping[Path, TakesEffect] = MappingProxyType(
    {
        ("memory", "enabled"): "next-run",
        ("memory", "mode"): "next-run",
        ("memory", "injection_enabled"): "next-run",
        ("memory", "backend_config"): "next-run",
        ("memory", "backend_config", "storage_path"): "restart",
        ("title",): "next-run",
        ("user_thread_mapping", "enabled"): "next-run",
        ("user_thread_mapping", "anonymous"): "next-run",
        ("user_thread_mapping", "anonymous_user_id"): "next-run",
        ("model_feedback", "enabled"): "rebuild",
        ("models",): "rebuild",
        ("tools",): "rebuild",
        ("tool_groups",): "rebuild",
        ("skills",): "rebuild",
        ("subagents",): "rebuild",
        ("extensions",): "rebuild",
    }
)


def takes_effect(path: Path) -> TakesEffect:
    """By the longest known beginning of the path; whatever is not known needs a restart."""
    for length in range(len(path), 0, -1):
        if path[:length] in _EFFECTS:
            return _EFFECTS[path[:length]]
    return "restart"
