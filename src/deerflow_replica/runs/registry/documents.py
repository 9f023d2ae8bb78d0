"""The JSON documents of a row: detached from the caller's objects, the same on every backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import orjson

from ...stream.payload import encode_plain


def to_json(document: Any) -> str:
    """JSON text, by the rules of a published event. `TypeError` for what has no JSON form."""
    return encode_plain(document).decode()


def from_json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


@overload
def detached(document: Mapping[str, Any]) -> dict[str, Any]: ...
@overload
def detached(document: None) -> None: ...
def detached(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a database would give back."""
    return None if document is None else from_json(to_json(document))
