"""What a graph takes and gives, as JSON Schemas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NotRequired, Required, get_type_hints

from langgraph.channels.base import BaseChannel
from langgraph.pregel import Pregel
from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from typing_extensions import TypedDict, is_typeddict

from ..context import DeerFlowContext
from .graphs import Graph

Schema = dict[str, Any] | None


class _ClientContext(TypedDict, total=False):
    """What a client may say of a `DeerFlowContext`: the rest is the replica's word."""

    agent_name: str | None


def schemas_of(graph: Any, graph_id: str) -> dict[str, Any]:
    """Null where a graph has no schema, or one of types that JSON knows nothing of.

    A graph declares one schema for its context and for `configurable`; which of the two it reads is its own affair.
    """
    if not isinstance(graph, Pregel):  # a subgraph may be a remote one, whose schemas are not here
        return _answer(graph_id, None, None, None, None)
    builder = getattr(graph, "builder", None)
    return _answer(
        graph_id,
        _first(graph.get_input_jsonschema, lambda: _typed_dict(getattr(builder, "input_schema", None))),
        _first(graph.get_output_jsonschema, lambda: _typed_dict(getattr(builder, "output_schema", None))),
        _first(lambda: _state(graph)),
        _first(lambda: _context(graph), lambda: _typed_dict(graph.context_schema)),
    )


def _answer(graph_id: str, given: Schema, made: Schema, state: Schema, context: Schema) -> dict[str, Any]:
    return {
        "graph_id": graph_id,
        "input_schema": given,
        "output_schema": made,
        "state_schema": state,
        "config_schema": context,
        "context_schema": context,
    }


def _first(*ways: Callable[[], Schema]) -> Schema:
    for make in ways:
        try:
            return make()
        except (PydanticUserError, PydanticUndefinedAnnotation, ValueError, TypeError, NameError):
            continue  # this way does not know the types
    return None


def _typed_dict(kind: Any) -> Schema:
    """pydantic refuses those of `typing` before Python 3.12."""
    if not is_typeddict(kind):
        return None
    required: frozenset[str] = kind.__required_keys__
    fields = {
        name: Required[hint] if name in required else NotRequired[hint] for name, hint in get_type_hints(kind).items()
    }
    return _of(kind.__name__, fields)


def _state(graph: Graph) -> Schema:
    channels = {name: graph.channels[name] for name in graph.stream_channels_list}
    types = {name: channel.UpdateType for name, channel in channels.items() if isinstance(channel, BaseChannel)}
    return _of(graph.get_name("State"), {name: NotRequired[kind] for name, kind in types.items()})


def _context(graph: Graph) -> Schema:
    schema = graph.context_schema
    if isinstance(schema, type) and issubclass(schema, DeerFlowContext):
        return {**TypeAdapter(_ClientContext).json_schema(), "title": schema.__name__}
    return graph.get_context_jsonschema()


def _of(name: str, fields: dict[str, Any]) -> Schema:
    made: Any = TypedDict(name, fields)  # type: ignore[misc]  # only the graph knows name and fields
    return TypeAdapter(made).json_schema()
