"""Immutable containers: what every mapping and list of a configuration becomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NoReturn, Self, SupportsIndex, overload
from uuid import UUID

from ..errors import ConfigError, ConfigProblem

MAX_DEPTH = 100
_SCALARS = (str, int, type(None), float, bytes, date, time, timedelta, Decimal, UUID)


@dataclass(frozen=True, slots=True)
class UnsetVariable:
    """Stands where the environment variable `name` was not set. Reading the leaf raises; equality is by name."""

    name: str
    problem: ConfigProblem

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnsetVariable) and other.name == self.name

    def __hash__(self) -> int:
        return hash(("UnsetVariable", self.name))

    def __repr__(self) -> str:
        return f"${self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return UnsetVariable, (self.name, self.problem)

    def read(self) -> NoReturn:
        raise ConfigError(self.problem)


def read(value: Any) -> Any:
    """The value itself, unless it is an unset variable: then `ConfigError`."""
    return value.read() if isinstance(value, UnsetVariable) else value


class FrozenDict(Mapping[Any, Any]):
    """A mapping that cannot change, down to its leaves. Hashable; equal to any mapping of equal content."""

    __slots__ = ("_data",)
    _data: Mapping[Any, Any]

    def __new__(cls, data: Mapping[Any, Any] | None = None) -> Self:
        frozen = {freeze(key): freeze(value) for key, value in raw_items(data or {})}
        self = super().__new__(cls)
        object.__setattr__(self, "_data", MappingProxyType(frozen))
        return self

    def __getitem__(self, key: Any) -> Any:
        return read(self._data[key])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenDict):
            return self._data == other._data
        return isinstance(other, Mapping) and self == _frozen_or_none(other)

    def __hash__(self) -> int:
        return hash(frozenset(self._data.items()))

    def __repr__(self) -> str:
        return f"FrozenDict({_masked(self)!r})"

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("a configuration cannot be changed; evolve() gives a changed copy")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a configuration cannot be changed; evolve() gives a changed copy")

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict if _has_nan(self._data.values()) else _frozen_dict, (dict(self._data),)


class FrozenList(tuple[Any, ...]):
    """A tuple that masks secrets in its text and raises where an unset variable is read."""

    __slots__ = ()

    def __new__(cls, values: Iterable[Any] = ()) -> Self:
        return super().__new__(cls, [freeze(value) for value in raw_values(values)])

    def __iter__(self) -> Iterator[Any]:
        return map(read, super().__iter__())

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> FrozenList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return FrozenList(found) if isinstance(index, slice) else read(found)

    def __repr__(self) -> str:
        return repr(tuple(_masked(self)))

    def __copy__(self) -> FrozenList:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenList:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        values = tuple(raw_values(self))
        return FrozenList if _has_nan(values) else _frozen_list, (values,)


def _has_nan(values: Iterable[Any]) -> bool:
    """The one NaN that all others became: an unpickled one would be another."""
    return id(math.nan) in map(id, values)


def _frozen_dict(frozen: dict[Any, Any]) -> FrozenDict:
    """Of what is nobody else's and frozen below: what a pickle holds."""
    made = object.__new__(FrozenDict)
    object.__setattr__(made, "_data", MappingProxyType(frozen))
    return made


def _frozen_list(frozen: tuple[Any, ...]) -> FrozenList:
    """The same for a list."""
    return tuple.__new__(FrozenList, frozen)


def raw_items(mapping: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """The items without reading them: unset variables stay objects."""
    return mapping._data.items() if isinstance(mapping, FrozenDict) else mapping.items()


def raw_values(values: Iterable[Any]) -> Iterable[Any]:
    return tuple.__iter__(values) if isinstance(values, FrozenList) else values


ALREADY_FROZEN = frozenset({str, int, bool, type(None), FrozenDict, FrozenList, UnsetVariable})
_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (float, lambda value: math.nan if math.isnan(value) else float.__float__(value)),
    (str, str.__str__),
    (int, int.__int__),
    (bytes, bytes.__bytes__),
)


def freeze(value: Any) -> Any:
    """An immutable copy of plain data. `ValueError` names anything that is not plain data, and a cycle."""
    if type(value) in ALREADY_FROZEN:
        return value
    if isinstance(value, _SCALARS):
        return _exact(value)
    try:
        return _freeze_container(value)
    except RecursionError:
        raise ValueError("data refers to itself or is nested too deeply") from None


def _exact(value: Any) -> Any:
    """Without a subclass, whose attributes could change and which another process may not have. One NaN for all, so
    that equal content stays equal.
    """
    return next((plain(value) for kind, plain in _EXACT if isinstance(value, kind)), value)


def _freeze_container(value: Any) -> Any:
    given: Callable[[], Mapping[Any, Any]] | None = getattr(value, "__config_mapping__", None)
    if given is not None:
        return FrozenDict(given())
    if isinstance(value, Mapping):
        return FrozenDict(value)
    if isinstance(value, AbstractSet):
        return frozenset(freeze(member) for member in value)
    if isinstance(value, Sequence) and not isinstance(value, bytearray | memoryview):
        return FrozenList(value)
    raise ValueError(f"only plain data can be configuration, not {type(value).__name__}")


def _masked(value: Any) -> Any:
    from .display import display  # it looks into these containers, so it cannot come first

    return display(value)


def _frozen_or_none(value: Mapping[Any, Any]) -> Any:
    try:
        return freeze(value)
    except ValueError:
        return None


def thaw(value: Any) -> Any:
    """Plain dicts and lists again, detached. Unset variables become their `$NAME`."""
    effective = getattr(value, "__config_values__", None)
    if effective is not None:
        value = effective()
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in raw_items(value)}
    if isinstance(value, tuple | list):
        return [thaw(item) for item in raw_values(value)]
    if isinstance(value, AbstractSet):
        return set(value)
    return repr(value) if isinstance(value, UnsetVariable) else value
