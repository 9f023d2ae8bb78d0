"""What may be shown of a configuration: names, sizes and hosts, never a secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from .frozen import UnsetVariable, freeze, raw_items, raw_values
from .masking import MASK, is_secret_name, is_secret_option, masked

_LONGEST_NUMBER_BITS = 2000
"""Python refuses to write much longer numbers as decimals."""
Select = Callable[[Any], Mapping[str, Any]]
"""Which values of a section are shown."""


def display(
    value: Any,
    variables: Mapping[tuple[Any, ...], str] | None = None,
    select: Select | None = None,
    path: tuple[Any, ...] = (),
    *,
    secret: bool = False,
) -> Any:
    """Plain, masked data for every output. `variables` tells by path which texts came from the environment; `path`
    is where `value` is; `secret` says that it is one, whatever its name.
    """
    shown = _Display(variables or {}, select or (lambda section: section.__config_values__()))
    return shown.show(value, path, secret=secret or any(is_secret_name(part) for part in path))


class _Display:
    def __init__(self, variables: Mapping[tuple[Any, ...], str], select: Select) -> None:
        self._variables = variables
        self._select = select

    def show(self, value: Any, path: tuple[Any, ...], *, secret: bool = False) -> Any:
        if path in self._variables:
            return f"${self._variables[path]}"
        if isinstance(value, str | bytes | int | float):
            return _scalar(value, secret=secret)
        if isinstance(value, tuple | list):
            return self._items(tuple(raw_values(value)), path, secret=secret)
        if isinstance(value, AbstractSet):
            return {_member(self.show(item, (*path, item), secret=secret)) for item in value}
        if isinstance(value, Mapping):
            return self._mapping(value, path, secret=secret)
        if hasattr(value, "__config_values__"):
            return self._mapping(self._select(value), path, secret=secret)
        return repr(value) if isinstance(value, UnsetVariable) else value

    def _items(self, items: tuple[Any, ...], path: tuple[Any, ...], *, secret: bool) -> list[Any]:
        before = (None, *items)
        return [
            self.show(item, (*path, i), secret=secret or is_secret_option(before[i])) for i, item in enumerate(items)
        ]

    def _mapping(self, mapping: Mapping[Any, Any], path: tuple[Any, ...], *, secret: bool) -> dict[Any, Any]:
        return {
            key: self.show(item, (*path, key), secret=secret or is_secret_name(key)) for key, item in raw_items(mapping)
        }


def _member(shown: Any) -> Any:
    """What is shown of a member of a set, as something that a set can hold."""
    if isinstance(shown, list):
        return tuple(map(_member, shown))
    return frozenset(shown) if isinstance(shown, set) else freeze(shown)


def _scalar(value: Any, *, secret: bool) -> Any:
    if secret and not isinstance(value, bool) and value not in ("", b""):
        return MASK
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER_BITS:
        return hex(value)
    return masked(value) if isinstance(value, str) else value
