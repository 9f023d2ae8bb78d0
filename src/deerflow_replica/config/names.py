"""The names that DeerFlow and this package know, and what an unknown one may have meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .frozen import raw_items
from .section import Section, section_of

DEERFLOW_SECTIONS = frozenset(
    {
        "acp_agents", "agent_storage", "agents_api", "auth", "authorization", "channel_connections", "channels",
        "dedupe_storage", "guardrails", "input_polish", "llm_call", "logging", "loop_detection",
        "max_recursion_limit", "mcp_tasks", "oidc", "read_before_write", "run_events", "safety_finish_reason",
        "sandbox", "scheduler", "skill_evolution", "skill_scan", "skills", "subagent_batches", "subagent_runtime",
        "subagents", "suggestions", "summarization", "tavily", "token_budget", "token_usage", "tool_groups",
        "tool_output", "tool_progress", "tool_search", "tools", "uploads", "verbose",
    }
)  # fmt: skip
_FREE = frozenset({("extensions",)})
_MEMORY_FIELDS = frozenset(
    {
        "consolidation_enabled", "consolidation_max_groups_per_cycle", "consolidation_max_sources",
        "consolidation_min_facts", "debounce_seconds", "fact_confidence_threshold", "guaranteed_categories",
        "guaranteed_token_budget", "max_facts", "max_injection_tokens", "model_name", "retrieval_confidence_weight",
        "retrieval_diversity_weight", "retrieval_duplicate_threshold", "retrieval_relevance_weight",
        "retrieval_strategy", "retrieval_top_k", "staleness_age_days", "staleness_max_extension_days",
        "staleness_max_lifetime_multiplier", "staleness_max_removals_per_cycle", "staleness_min_candidates",
        "staleness_protected_categories", "staleness_review_enabled", "storage_path", "token_counting",
    }
)  # fmt: skip
_ALLOWED: Mapping[tuple[str, ...], frozenset[str]] = MappingProxyType(
    {(): DEERFLOW_SECTIONS, ("memory",): _MEMORY_FIELDS}
)
_INSIDE: Mapping[tuple[str, ...], frozenset[str]] = MappingProxyType(
    {
        ("store", "index"): frozenset({"ann_index_config", "dims", "distance_type", "embed", "fields"}),
        ("store", "text_index"): frozenset({"fields", "language"}),
        ("store", "ttl"): frozenset({"default_ttl", "omit_expired", "refresh_on_read", "sweep_interval_minutes"}),
    }
)
"""What mappings that are handed on as they are may hold."""


class UnknownName(NamedTuple):
    """A name that nothing here knows, and the known one it is close to."""

    path: tuple[str, ...]
    meant: str | None


def unknown_names(data: Any, kind: type[Section], path: tuple[str, ...] = ()) -> Iterator[UnknownName]:
    """Those of `data`, a `kind` or what one is made of, then those of the sections in it; `models` and `extensions` may
    hold anything.
    """
    given = dict(raw_items(data.__config_mapping__() if isinstance(data, Section) else data))
    names = [name for name in given if isinstance(name, str) and name not in kind.known_names()]
    yield from _among(names, _ALLOWED.get(path, frozenset()), kind.known_names(), path)
    for name, field in kind.model_fields.items():
        section, below = section_of(field), (*path, name)
        if below in _INSIDE and isinstance(given.get(name), Mapping):
            inside = [one for one in given[name] if isinstance(one, str) and one not in _INSIDE[below]]
            yield from _among(inside, frozenset(), _INSIDE[below], below)
        if section is not None and below not in _FREE and isinstance(given.get(name), Section | Mapping):
            yield from unknown_names(given[name], section, below)


def _among(
    names: Iterable[str], allowed: frozenset[str], known: frozenset[str], path: tuple[str, ...]
) -> Iterator[UnknownName]:
    for name in names:
        if name not in allowed:
            yield UnknownName((*path, name), nearest(name, known | allowed))


def nearest(name: str, known: Iterable[str], limit: int = 2) -> str | None:
    """The known name within edit distance `limit`, the closest first; short names must be closer."""
    close = (other for other in known if abs(len(name) - len(other)) <= limit)
    best = min(((distance(name, other), other) for other in close), default=(limit + 1, ""))
    return best[1] if best[0] <= limit and best[0] < len(name) else None


def distance(left: str, right: str) -> int:
    """How many letters to add, drop or change."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]
