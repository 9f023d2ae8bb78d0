"""What may be said of the store's items."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from .bodies import Body, Document, Limit, Offset, Positive, Text

_MOST_PARTS = 5000  # of one filter, which is one statement: a database plans more of them for seconds
_MOST_LABELS = 512  # no namespace has more


def _label(text: str) -> str:
    if not text or "." in text:
        raise ValueError("a label of a namespace is not empty and has no dot")
    return text


def _parts(filter: Any) -> int:
    inside = filter.values() if isinstance(filter, dict) else filter if isinstance(filter, list) else ()
    return 1 + sum(map(_parts, inside))


def _within_reason(filter: Document) -> Document:
    if _parts(filter) > _MOST_PARTS:
        raise ValueError(f"has more than {_MOST_PARTS} parts")
    return filter


Namespace = list[Annotated[str, AfterValidator(_label)]]
Pattern = Annotated[Namespace, Field(max_length=_MOST_LABELS)]
Minutes = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NAMESPACE: TypeAdapter[list[str]] = TypeAdapter(Namespace)


class ItemPlace(Body):
    namespace: Namespace
    key: str


class PutItem(ItemPlace):
    """`ttl` null: never expires; absent: as the store is configured."""

    value: Document
    index: Literal[False] | list[str] | None = None
    ttl: Minutes | None = None


class SearchItems(Body):
    namespace_prefix: Namespace | None = None
    filter: Annotated[Document, AfterValidator(_within_reason)] | None = None
    limit: Limit = 10
    offset: Offset = 0
    query: Text | None = None
    refresh_ttl: bool | None = None


class ListNamespaces(Body):
    """`*` in `prefix` and `suffix` stands for any label."""

    prefix: Pattern | None = None
    suffix: Pattern | None = None
    max_depth: Positive | None = None
    limit: Limit = 100
    offset: Offset = 0
