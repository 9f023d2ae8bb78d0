"""Where each value of a configuration came from: file, line, variable. Never part of what a configuration equals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

Path = tuple[Any, ...]
PlainPlace = tuple[str, int | None, int | None]
"""A `Place` as it is kept: plain tuples pickle three times as fast."""
_NAME, _ALIAS = ("extensions", "mcp_servers"), ("extensions", "mcpServers")
_NAMES: Mapping[Path, Path] = MappingProxyType({_ALIAS: _NAME})


def by_name(path: Path) -> Path:
    """The path as a configuration shows it, which has fields by their names and not by their aliases."""
    return _NAMES.get(path[:2], path[:2]) + path[2:]


class Place(NamedTuple):
    """A value's place in a file; lines and columns count from 1. What the environment gave has only its variable."""

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in self if part is not None)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What loading knew besides the values: the places, the variables, and the folders that paths start from."""

    places: Mapping[Path, PlainPlace] = field(default_factory=dict)
    key_places: Mapping[Path, PlainPlace] = field(default_factory=dict)
    variables: Mapping[Path, str] = field(default_factory=dict)
    project_root: str | None = None
    home: str | None = None
    brought: tuple[Path, ...] = ()
    """What changes brought: it is in no file."""

    def __post_init__(self) -> None:
        for name in ("places", "key_places"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        variables = {by_name(path): variable for path, variable in self.variables.items()}
        object.__setattr__(self, "variables", MappingProxyType(variables))

    def __reduce__(self) -> tuple[Any, ...]:
        tables = dict(self.places), dict(self.key_places), dict(self.variables)
        return Provenance, (*tables, self.project_root, self.home, self.brought)

    @property
    def source(self) -> str | None:
        """The main file, as it was named."""
        found = self.places.get(())
        return found[0] if found else None

    def own_place(self, path: Path) -> Place | None:
        """The value's own place, whichever of its field's two names the file has."""
        found = self.places.get(path)
        if found is None and path[:2] == _NAME:
            found = self.places.get(_ALIAS + path[2:])
        return Place(*found) if found else None

    def key_place(self, path: Path) -> Place | None:
        """The place of the key that leads to the value."""
        found = self.key_places.get(path)
        return Place(*found) if found else None

    def place(self, path: Path) -> Place | None:
        """The value's place, or that of the mapping that lacks it; None for what no file has."""
        if _below_any(by_name(path), self.brought):
            return None
        for length in range(len(path), -1, -1):
            if found := self.own_place(path[:length]):
                return found
        return None

    def without(self, changed: tuple[Path, ...], variables: Mapping[Path, str]) -> Provenance:
        """The same for a configuration in which the values at and below `changed` are new."""

        sections = {root[:1] for root in changed}

        def kept(table: Mapping[Path, Any]) -> dict[Path, Any]:
            return {
                path: value
                for path, value in table.items()
                if path[:1] not in sections or not _below_any(by_name(path), changed)
            }

        return Provenance(
            kept(self.places),
            kept(self.key_places),
            kept(self.variables) | dict(variables),
            self.project_root,
            self.home,
            tuple(dict.fromkeys((*self.brought, *changed))),
        )


def _below_any(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(path[: len(root)] == root for root in roots)
