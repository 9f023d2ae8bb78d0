"""`"$VAR"`: a text that stands for a variable of the environment, replaced while the input is frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

from ..errors import ConfigProblem
from .frozen import MAX_DEPTH, FrozenDict, FrozenList, UnsetVariable, freeze, raw_items, raw_values
from .provenance import Path, PlainPlace

_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
WhenUnset = Literal["keep", "empty"]


class Resolver:
    """Freezes plain data and replaces variables on the way; collects what was replaced and what is wrong."""

    def __init__(
        self, env: Mapping[str, str], places: Mapping[Path, PlainPlace] | None = None, when_unset: WhenUnset = "keep"
    ) -> None:
        self._env = env
        self._places = places or {}
        self._when_unset = when_unset
        self._open: set[int] = set()
        self.variables: dict[Path, str] = {}
        self.problems: list[ConfigProblem] = []

    def resolve(self, value: Any, path: Path = ()) -> Any:
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, FrozenDict | FrozenList) or not isinstance(value, Mapping | Sequence | AbstractSet):
            return self._leaf(value, path)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._leaf(value, path)
        return self._container(value, path)

    def _text(self, text: str, path: Path) -> Any:
        match = _VARIABLE.fullmatch(text)
        if match is None:
            return text
        name = match[1]
        self.variables[path] = name
        found = self._env.get(name)
        if found is None:
            problem = self._problem(path, f"the environment variable {name} is not set")
            return "" if self._when_unset == "empty" else UnsetVariable(name, problem)
        return found

    def _problem(self, path: Path, message: str) -> ConfigProblem:
        above = (path[:length] for length in range(len(path), -1, -1))
        place = next((self._places[part] for part in above if part in self._places), None)
        return ConfigProblem(dotted(path), message, *(place or (None, None, None)))

    def _leaf(self, value: Any, path: Path) -> Any:
        try:
            return freeze(value)
        except ValueError as error:
            return self._refuse(path, str(error))

    def _container(self, value: Any, path: Path) -> Any:
        if id(value) in self._open:
            return self._refuse(path, "data refers to itself")
        if len(path) >= MAX_DEPTH:
            return self._refuse(path, f"nested more than {MAX_DEPTH} levels deep")
        self._open.add(id(value))
        frozen = self._children(value, path)
        self._open.discard(id(value))
        return frozen

    def _children(self, value: Any, path: Path) -> Any:
        if isinstance(value, AbstractSet):
            return frozenset(self._leaf(member, path) for member in value)
        if isinstance(value, Mapping):
            found = {}
            for key, item in raw_items(value):  # loops, not comprehensions: half the stack for deep data
                found[self._leaf(key, path)] = self.resolve(item, (*path, key))
            return FrozenDict(found)
        items = []
        for index, item in enumerate(raw_values(value)):
            items.append(self.resolve(item, (*path, index)))
        return FrozenList(items)

    def _refuse(self, path: Path, message: str) -> None:
        self.problems.append(self._problem(path, message))


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)
