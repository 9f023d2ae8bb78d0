"""What may be said of assistants."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..runs.registry.assistants import AssistantOrder, Direction
from .bodies import Body, ConfigBody, Document, Limit, Metadata, Offset, Text, Uuid

Selected = Literal[
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "config",
    "context",
    "metadata",
    "version",
    "created_at",
    "updated_at",
]


Name = Annotated[Text, Field(min_length=1)]


class _About(Body):
    config: ConfigBody | None = None
    context: Document | None = None
    metadata: Metadata | None = None
    name: Name | None = None
    description: Text | None = None


class UpdateAssistant(_About):
    graph_id: str | None = None


class CreateAssistant(_About):
    graph_id: str
    assistant_id: Uuid | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None


class CountAssistants(Body):
    graph_id: Text | None = None
    name: Text | None = None
    metadata: Metadata | None = None


class SearchAssistants(CountAssistants):
    limit: Limit = 10
    offset: Offset = 0
    sort_by: AssistantOrder | None = None
    sort_order: Direction | None = None
    select: list[Selected] | None = None
