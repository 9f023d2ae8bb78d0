"""What may be said of the store's items."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from .bodies import Body, Document, Limit, Offset, Positive, Text


def _label(text: str) -> str:
    if not text or "." in text:
        raise ValueError("a label of a namespace is not empty and has no dot")
    return text


Namespace = list[Annotated[str, AfterValidator(_label)]]
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
    filter: Document | None = None
    limit: Limit = 10
    offset: Offset = 0
    query: Text | None = None
    refresh_ttl: bool | None = None


class ListNamespaces(Body):
    """`*` in `prefix` and `suffix` stands for any label."""

    prefix: Namespace | None = None
    suffix: Namespace | None = None
    max_depth: Positive | None = None
    limit: Limit = 100
    offset: Offset = 0
