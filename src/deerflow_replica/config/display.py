"""What may be shown of a configuration: names, sizes and hosts, never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from .frozen import UnsetVariable, raw_items, raw_values
from .masking import MASK, is_secret_name, masked


def display(value: Any, variables: Mapping[tuple[Any, ...], str] | None = None) -> Any:
    """Plain, masked data for every output. `variables` tells by path which texts came from the environment."""
    return _display(value, variables or {}, (), secret=False)


def _display(value: Any, variables: Mapping[tuple[Any, ...], str], path: tuple[Any, ...], *, secret: bool) -> Any:
    if path in variables:
        return f"${variables[path]}"
    if isinstance(value, UnsetVariable):
        return repr(value)
    if isinstance(value, str | bytes) or _is_number(value):
        return _display_scalar(value, secret=secret)
    if isinstance(value, tuple | list):
        return [_display(item, variables, (*path, i), secret=secret) for i, item in enumerate(raw_values(value))]
    if isinstance(value, AbstractSet):
        return {_display(item, {}, (), secret=secret) for item in value}
    effective = getattr(value, "__config_values__", None)
    if effective is not None or isinstance(value, Mapping):
        items = raw_items(effective()) if effective is not None else raw_items(value)
        return {
            key: _display(item, variables, (*path, key), secret=secret or is_secret_name(key)) for key, item in items
        }
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _display_scalar(value: Any, *, secret: bool) -> Any:
    if secret and value not in ("", b""):
        return MASK
    return masked(value) if isinstance(value, str) else value
