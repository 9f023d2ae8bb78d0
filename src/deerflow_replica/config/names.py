"""The names that DeerFlow and this package know, and what an unknown one may have meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .section import Section

if TYPE_CHECKING:
    from .app import AppConfig

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
_FREE = frozenset({"extensions"})
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


class UnknownName(NamedTuple):
    """A name that nothing here knows, and the known one it is close to."""

    path: tuple[str, ...]
    meant: str | None


def unknown_names(config: AppConfig) -> Iterator[UnknownName]:
    """Unknown sections first, then unknown keys of known sections; `models` and `extensions` may hold anything."""
    extras = config.model_extra or {}
    yield from _among(tuple(extras), DEERFLOW_SECTIONS, type(config).known_names(), ())
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, Section) and name not in _FREE:
            yield from _inside(section, (name,))


def _inside(section: Section, path: tuple[str, ...]) -> Iterator[UnknownName]:
    allowed = _MEMORY_FIELDS if path == ("memory",) else frozenset[str]()
    yield from _among(tuple(section.model_extra or {}), allowed, type(section).known_names(), path)
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _inside(value, (*path, name))


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
