"""Dotted keys into a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from .frozen import UnsetVariable, raw_items, raw_values, read
from .provenance import Path
from .section import Section
from .variables import dotted


class Found(NamedTuple):
    """What a key leads to. The value is raw: an unset variable stays an object."""

    path: Path
    value: Any
    is_given: bool = True
    field: FieldInfo | None = None


def look_up(root: Section, key: str | tuple[Any, ...]) -> Any:
    """The value at a dotted key, or at a tuple of parts. `KeyError` with a suggestion."""
    return read(find(root, key).value)


def find(root: Section, key: str | tuple[Any, ...]) -> Found:
    found = Found((), root)
    for part in key.split(".") if isinstance(key, str) else key:
        found = _below(found, part)
    return found


def _below(above: Found, part: Any) -> Found:
    holder, path = above.value, (*above.path, part)
    if isinstance(holder, UnsetVariable):
        holder.read()
    if isinstance(holder, Section):
        return _in_section(holder, part, above.path)
    if isinstance(holder, Mapping):
        items = dict(raw_items(holder))
        name = _name(items, part, above.path)
        return Found((*above.path, name), items[name], above.is_given)
    if isinstance(holder, tuple) and (index := _index(part)) is not None and index < len(holder):
        return Found((*above.path, index), tuple(raw_values(holder))[index], above.is_given)
    raise KeyError(f"{dotted(path)} is not in the configuration")


def _in_section(section: Section, part: Any, above: Path) -> Found:
    fields = type(section).model_fields
    by_alias = {field.alias: name for name, field in fields.items() if field.alias}
    values = section.__config_values__()
    name = by_alias.get(part) or _name(values, part, above)
    is_given = name not in fields or name in section.model_fields_set
    return Found((*above, name), values[name], is_given, fields.get(name))


def _name(names: Iterable[Any], part: Any, above: Path) -> Any:
    if part in names:
        return part
    if isinstance(part, str) and part.isdecimal() and int(part) in names:
        return int(part)
    close = difflib.get_close_matches(str(part), [name for name in names if isinstance(name, str)], 1)
    meant = f", did you mean {dotted((*above, close[0]))}?" if close else ""
    raise KeyError(f"{dotted((*above, part))} is not in the configuration{meant}")


def _index(part: Any) -> int | None:
    if isinstance(part, int):
        return part if part >= 0 else None
    return int(part) if isinstance(part, str) and part.isdecimal() else None
