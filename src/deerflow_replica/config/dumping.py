"""The options of Pydantic's dumps, applied to what may be shown."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from pydantic import SerializationInfo


def kept(shown: dict[str, Any], info: SerializationInfo) -> Any:
    """What the options of a dump leave of what may be shown."""
    narrowed: dict[Any, Any] = _narrowed(shown, info.include, info.exclude)
    return _without_none(narrowed) if info.exclude_none else narrowed


def _narrowed(shown: Any, include: Any, exclude: Any) -> Any:
    """Only the names to include, without those to exclude: sets of names, or mappings of them to more of the same."""
    if not isinstance(shown, dict):
        return shown
    below_in = include if isinstance(include, Mapping) else {}
    below_out = exclude if isinstance(exclude, Mapping) else {}
    return {
        name: _narrowed(value, _deeper(below_in.get(name)), _deeper(below_out.get(name)))
        for name, value in shown.items()
        if (include is None or name in include)
        and (exclude is None or name not in exclude or _deeper(below_out.get(name)) is not None)
    }


def _deeper(names: Any) -> Any:
    return names if isinstance(names, Mapping | AbstractSet) else None


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def jsonable(value: Any) -> Any:
    """JSON has texts for keys, lists for sets, and base64 for bytes."""
    if isinstance(value, Mapping):
        return {_key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [jsonable(item) for item in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(jsonable(key))
