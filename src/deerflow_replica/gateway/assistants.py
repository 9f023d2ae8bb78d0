"""Which assistants a user finds: one for each graph, which is there on every replica, and those that were created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..runs.registry.assistants import AssistantFilter, AssistantOrder, AssistantRow, Direction, matches, ordered
from .bodies import ConfigBody, CreateRun
from .ids import as_uuid, system_assistant_id
from .problems import ASSISTANT_NOT_FOUND, conflict, not_found

if TYPE_CHECKING:
    from .gateway import Gateway

_MOST = 1000
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)  # every replica must answer the same, and none knows when the first began


def system_assistant(graph_name: str) -> AssistantRow:
    """The assistant that stands for a graph. It is everybody's, and never stored."""
    return AssistantRow(
        assistant_id=system_assistant_id(graph_name),
        graph_id=graph_name,
        name=graph_name,
        metadata={"created_by": "system"},
        created_at=_ALWAYS,
        updated_at=_ALWAYS,
    )


def named_system_assistant(gateway: Gateway, name: str) -> AssistantRow | None:
    """By the graph's name, or by the assistant's id."""
    graph = gateway.graph_of(name) or gateway.graph_of(_id_of(name) or "")
    return None if graph is None else system_assistant(graph.name)


async def assistant_of(gateway: Gateway, name: str, user_id: str | None) -> AssistantRow | None:
    """The assistant that this user means: by a graph's name, or by id. Another's is one that does not exist."""
    system = named_system_assistant(gateway, name)
    if system is not None:
        return system
    assistant_id = _id_of(name)
    if assistant_id is None:
        return None
    return await gateway.replica.runs.assistants.get(assistant_id, user_id=user_id)


async def require_assistant(gateway: Gateway, name: str, user_id: str | None) -> AssistantRow:
    row = await assistant_of(gateway, name, user_id)
    if row is None:
        raise not_found(ASSISTANT_NOT_FOUND)
    return row


async def require_created(gateway: Gateway, name: str, user_id: str | None) -> AssistantRow:
    """An assistant that may be changed: 409 for one that stands for a graph."""
    if named_system_assistant(gateway, name) is not None:
        raise conflict("A system assistant cannot be changed or deleted")
    return await require_assistant(gateway, name, user_id)


async def count_assistants(gateway: Gateway, wanted: AssistantFilter) -> int:
    return len(_system(gateway, wanted)) + await gateway.replica.runs.assistants.count(wanted)


async def found_assistants(
    gateway: Gateway, wanted: AssistantFilter, sort_by: AssistantOrder, sort_order: Direction, limit: int, offset: int
) -> Sequence[AssistantRow]:
    """One page of both kinds in one order."""
    system = _system(gateway, wanted)
    # Of the created ones, those before this are on earlier pages, wherever the others fall among them.
    skipped = max(0, offset - len(system))
    wide = offset - skipped + limit
    rows = await _rows(gateway, wanted, sort_by, sort_order, wide, skipped)
    return ordered([*system, *rows], sort_by, sort_order)[offset - skipped : wide]


def with_defaults(body: CreateRun, assistant: AssistantRow) -> CreateRun:
    """The run that is asked for, with its assistant's config, context and metadata where it says nothing itself."""
    if assistant.assistant_id == system_assistant_id(assistant.graph_id):
        return body
    config = {} if body.config is None else body.config.model_dump(exclude_unset=True)
    given = {name: value for name, value in config.items() if value is not None}
    changes = {
        "config": ConfigBody.model_validate(deep_merged(assistant.config, given)),
        "context": deep_merged(assistant.context, body.context or {}) or body.context,
        "metadata": deep_merged(assistant.metadata, body.metadata or {}),
    }
    return body.model_copy(update=changes)


def deep_merged(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Objects are merged at every depth; anything else is as it is given."""
    merged = {**default, **given}
    for key in default.keys() & given.keys():
        old, new = default[key], given[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            merged[key] = deep_merged(old, new)
    return merged


def _id_of(name: str) -> str | None:
    try:
        return as_uuid(name)
    except ValueError:
        return None


async def _rows(
    gateway: Gateway, wanted: AssistantFilter, sort_by: AssistantOrder, sort_order: Direction, limit: int, offset: int
) -> list[AssistantRow]:
    """Any number of created ones, as many at a time as the registry gives."""
    rows: list[AssistantRow] = []
    while len(rows) < limit:
        page = await gateway.replica.runs.assistants.search(
            wanted,
            limit=min(_MOST, limit - len(rows)),
            offset=offset + len(rows),
            sort_by=sort_by,
            sort_order=sort_order,
        )
        rows += page
        if len(page) < _MOST:
            break
    return rows


def _system(gateway: Gateway, wanted: AssistantFilter) -> list[AssistantRow]:
    rows = [system_assistant(name) for name in gateway.graphs]
    return [row for row in rows if matches(row, replace(wanted, user_id=None))]
