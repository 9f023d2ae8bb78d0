"""`DEERFLOW_REPLICA__SECTION__FIELD`: single values from the environment, over those of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ..errors import ConfigError, ConfigProblem
from .documents import read_value
from .frozen import FrozenDict, freeze, raw_items
from .names import nearest
from .provenance import Path
from .section import Section, section_of
from .variables import dotted

_PREFIX = "DEERFLOW_REPLICA__"


class Override(NamedTuple):
    """The variable, where its value goes, and the value."""

    variable: str
    path: Path
    value: Any


def apply_overrides(
    data: Mapping[str, Any], env: Mapping[str, str], root: type[Section], others: frozenset[str]
) -> tuple[dict[str, Any], list[Override], list[ConfigProblem]]:
    """The data with every override in it. `others` are the sections that `root` has no field for and that may be
    named all the same.
    """
    result: Any = dict(raw_items(data))
    applied: list[Override] = []
    problems: list[ConfigProblem] = []
    for variable, names in _named(env):
        try:
            path, is_text = _resolved(result, root, names, others)
            value = env[variable] if is_text else freeze(read_value(env[variable], variable))
        except _UnknownPathError as error:
            problems.append(ConfigProblem(dotted(names), str(error), variable))
        except ConfigError as error:
            problems += [ConfigProblem(dotted(names), problem.message, variable) for problem in error.problems]
        else:
            result = _with(result, path, value)
            applied.append(Override(variable, path, value))
    return result, applied, problems


class _UnknownPathError(Exception):
    """The variable names nothing that can be set."""


def _named(env: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Sections before their fields, so that the fields win."""
    found = [name for name in env if name.upper().startswith(_PREFIX)]
    named = [(tuple(name[len(_PREFIX) :].lower().split("__")), name) for name in found]
    yield from ((name, names) for names, name in sorted(named))


def _resolved(
    data: Mapping[Any, Any], root: type[Section], names: tuple[str, ...], others: frozenset[str]
) -> tuple[Path, bool]:
    """The exact path, and whether the field there takes the text as it is."""
    holder: Any = data
    kind: type[Section] | None = root
    path: Path = ()
    is_text = False
    for name in names:
        if not isinstance(holder, Mapping):
            raise _UnknownPathError("a variable cannot set a part of a list or of a plain value")
        key = _key(holder, kind, name, others if not path else frozenset())
        field = kind.model_fields.get(_field_name(kind, key)) if kind is not None else None
        is_text = field is not None and _takes_text(field.annotation)
        kind = section_of(field) if field is not None else None
        holder = _below(dict(raw_items(holder)).get(key), field)
        path = (*path, key)
    return path, is_text


def _key(holder: Mapping[Any, Any], kind: type[Section] | None, name: str, others: frozenset[str]) -> Any:
    present = {key.lower(): key for key in holder if isinstance(key, str)}
    if name in present:
        return present[name]
    known = kind.known_names() | others if kind is not None else frozenset({name})
    for candidate in sorted(known):
        if candidate.lower() == name:
            return present.get(_field_name(kind, candidate).lower(), candidate) if kind is not None else candidate
    meant = nearest(name, {candidate.lower() for candidate in known} | present.keys()) if kind is not None else None
    raise _UnknownPathError("unknown name in an environment variable" + (f", did you mean {meant}?" if meant else ""))


def _field_name(kind: type[Section], key: Any) -> Any:
    return next((name for name, field in kind.model_fields.items() if key in (name, field.alias)), key)


def _below(value: Any, field: FieldInfo | None) -> Any:
    """What a further name would be looked up in: an absent mapping is an empty one."""
    if value is not None:
        return value
    can_hold = field is None or section_of(field) is not None or _is_mapping(field.annotation)
    return FrozenDict() if can_hold else None


def _is_mapping(annotation: Any) -> bool:
    return any(get_origin(part) is Mapping for part in _alternatives(annotation))


def _takes_text(annotation: Any) -> bool:
    return any(part is str or get_origin(part) is Literal for part in _alternatives(annotation))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, without what they are annotated with."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(part for member in get_args(annotation) for part in _alternatives(member))
    return _alternatives(annotation.__origin__) if hasattr(annotation, "__metadata__") else (annotation,)


def _with(holder: Any, path: Path, value: Any) -> dict[Any, Any]:
    items = dict(raw_items(holder or {}))
    key, *rest = path
    items[key] = FrozenDict(_with(items.get(key), tuple(rest), value)) if rest else value
    return items
