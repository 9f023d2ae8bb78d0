"""Dotted keys into a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from .frozen import read
from .section import Section
from .variables import dotted


def look_up(root: Section, key: str | tuple[Any, ...]) -> Any:
    """The value at a dotted key, or at a tuple of exact parts. `KeyError` with a suggestion."""
    parts = tuple(key.split(".")) if isinstance(key, str) else key
    value: Any = root
    for depth, part in enumerate(parts):
        value = read(_step(value, part, parts[: depth + 1]))
    return value


def _step(value: Any, part: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(value, Section):
        return _member(_of_section(value), part, path)
    if isinstance(value, Mapping):
        return _member(value, part, path)
    if isinstance(value, tuple) and (index := _index(part)) is not None and index < len(value):
        return value[index]
    raise KeyError(f"{dotted(path)} is not in the configuration")


def _of_section(section: Section) -> Mapping[str, Any]:
    aliases = {field.alias: getattr(section, name) for name, field in type(section).model_fields.items() if field.alias}
    return {**aliases, **section.__config_values__()}


def _member(mapping: Mapping[Any, Any], part: Any, path: tuple[Any, ...]) -> Any:
    if part in mapping:
        return mapping[part]
    if isinstance(part, str) and part.isdecimal() and int(part) in mapping:
        return mapping[int(part)]
    names = [name for name in mapping if isinstance(name, str)]
    close = difflib.get_close_matches(str(part), names, 1)
    meant = f", did you mean {dotted((*path[:-1], close[0]))}?" if close else ""
    raise KeyError(f"{dotted(path)} is not in the configuration{meant}")


def _index(part: Any) -> int | None:
    if isinstance(part, int):
        return part if part >= 0 else None
    return int(part) if isinstance(part, str) and part.isdecimal() else None
