"""One document for a user, with summaries that all the user's agents see, and each agent's facts in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .checks import Document
from .names import agent_place

_AGENTS = "agentFacts"


def knows(document: Document, agent_name: str | None) -> bool:
    """Whether the agent's facts are in the document: if not, they may be where they were before."""
    return agent_name is None or agent_place(agent_name) in _agents(document)


def view_of(document: Document, agent_name: str | None, facts_before: list[Any] | None = None) -> Document:
    """What the agent sees (None: the user's own document), with the facts from before if it has none here."""
    seen = {key: value for key, value in document.items() if key != _AGENTS}
    if agent_name is not None:
        seen["facts"] = _agents(document).get(agent_place(agent_name), facts_before or [])
    return seen


def with_view(document: Document, agent_name: str | None, seen: Document) -> Document:
    """The user's document after the agent's view of it has become `seen`."""
    agents, whole = _agents(document), {key: value for key, value in seen.items() if key != _AGENTS}
    if agent_name is not None:
        agents = {**agents, agent_place(agent_name): seen.get("facts", [])}
        whole["facts"] = document.get("facts", [])
    return {**whole, _AGENTS: agents} if agents else whole


def without_facts(empty: Document, agents: Iterable[str]) -> Document:
    """The empty document, saying of agents that have facts elsewhere that they know nothing."""
    known = {agent_place(agent): list[Any]() for agent in sorted(agents)}
    return {**empty, _AGENTS: known} if known else empty


def _agents(document: Document) -> dict[str, list[Any]]:
    agents = document.get(_AGENTS)
    return agents if isinstance(agents, dict) else {}
