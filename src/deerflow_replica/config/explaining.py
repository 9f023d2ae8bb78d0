"""Where a value comes from, what it would be otherwise, and what differs between two configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError
from .connections import DERIVED_TYPE
from .display import display
from .effects import TakesEffect, takes_effect
from .frozen import freeze, raw_items, raw_values
from .lookup import Found, find
from .masking import is_secret_option
from .provenance import Path, Provenance
from .section import Section, section_of, with_derived
from .variables import dotted

if TYPE_CHECKING:
    from .app import AppConfig

Origin = Literal["default", "file", "environment", "argument"]
_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one key. `value` and `default` are masked.

    `source` is `path:line:column` for what is from a file, the variable's name for what is from the environment;
    `variable` the name of the `$VAR` that stands in the file. `takes_effect` says what a change of it needs: nothing
    but the next run, a rebuilt agent, or a restarted replica.
    """

    key: str
    value: Any
    default: Any
    origin: Origin
    source: str | None
    variable: str | None
    takes_effect: TakesEffect
    description: str


@dataclass(frozen=True, slots=True)
class Change:
    """One leaf that differs. `old` and `new` are masked, and None where nothing is."""

    key: str
    old: Any
    new: Any
    takes_effect: TakesEffect


def explanation(config: AppConfig, provenance: Provenance, key: str | tuple[Any, ...]) -> Explanation:
    found = find(config, key)
    origin, source = _origin(found, provenance)
    return Explanation(
        key=dotted(found.path),
        value=_shown(found.value, found.path, provenance, config),
        default=_shown(_default(config, found), found.path, Provenance()),
        origin=origin,
        source=source,
        variable=None if origin == "environment" else provenance.variables.get(found.path),
        takes_effect=takes_effect(found.path),
        description=_description(found),
    )


def _origin(found: Found, provenance: Provenance) -> tuple[Origin, str | None]:
    if not found.is_given:
        return "default", None
    place = provenance.own_place(found.path)
    if place is None:
        return "argument", None
    return "environment" if place.line is None else "file", str(place)


def _default(config: AppConfig, found: Found) -> Any:
    if found.field is None or found.field.is_required():
        return None
    section, *below = found.path
    default = found.field.get_default(call_default_factory=True)
    if section not in DERIVED_TYPE:
        return default
    if not below:
        return with_derived(default, type=config.database.backend)
    return config.database.backend if below == ["type"] else default


def _description(found: Found) -> str:
    if found.field is None:
        return ""
    section = section_of(found.field)
    return found.field.description or (section.__doc__ if section else None) or ""


def _shown(value: Any, path: Path, provenance: Provenance, config: AppConfig | None = None) -> Any:
    secret = config is not None and is_secret_option(_before(config, path))
    return freeze(display(value, provenance.variables, path=path, secret=secret))


def _before(config: AppConfig, path: Path) -> Any:
    """What stands before a part of a list."""
    *holder, last = path or (None,)
    return _at(config, (*holder, last - 1)) if isinstance(last, int) and last > 0 else None


def changes(old: AppConfig, known_of_old: Provenance, new: AppConfig, known_of_new: Provenance) -> tuple[Change, ...]:
    before, after = dict(_leaves(old, ())), dict(_leaves(new, ()))
    paths = sorted(_changed(before, after) | _changed(after, before), key=lambda path: (dotted(path), repr(path)))
    return tuple(
        Change(
            dotted(path),
            _shown(_at(old, path), path, known_of_old, old),
            _shown(_at(new, path), path, known_of_new, new),
            takes_effect(path),
        )
        for path in paths
    )


def _at(config: AppConfig, path: Path) -> Any:
    try:
        return find(config, path).value
    except (KeyError, ConfigError):  # not there, or below what is now a variable that is not set
        return None


def _changed(before: Mapping[Path, Any], after: Mapping[Path, Any]) -> set[Path]:
    """The leaves that are other ones, or none, afterwards; not an empty container that has been filled."""
    filled = {path[:length] for path in after for length in range(len(path))}
    return {
        path
        for path, value in before.items()
        if not _equal(value, after.get(path, _ABSENT)) and not (path in filled and _is_empty(value))
    }


def _equal(old: Any, new: Any) -> bool:
    return old is new or bool(old == new)


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping | tuple) and not value


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Whatever holds nothing further, with its path."""
    children = list(_children(value))
    if not children:
        yield path, value
    for key, child in children:
        yield from _leaves(child, (*path, key))


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Section):
        yield from value.__config_values__().items()
    elif isinstance(value, Mapping):
        yield from raw_items(value)
    elif isinstance(value, tuple):
        yield from enumerate(raw_values(value))
