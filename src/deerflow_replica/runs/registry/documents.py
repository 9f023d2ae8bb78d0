"""The JSON documents of a row: detached from the caller's objects, the same on every backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import orjson


def to_json(document: Any) -> str:
    """JSON text of plain data, Pydantic models, messages and dataclasses. `TypeError` for anything else."""
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS
    return orjson.dumps(document, default=_plain, option=options).decode()


def from_json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


@overload
def detached(document: Mapping[str, Any]) -> dict[str, Any]: ...
@overload
def detached(document: None) -> None: ...
def detached(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a database would give back."""
    return None if document is None else from_json(to_json(document))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (set, frozenset, tuple, list)):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
