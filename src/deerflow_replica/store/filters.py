"""What a search filter means: one reading of it, and the pure reference that every backend equals.

`parse` turns a filter into a tree of conditions; `matches` asks the tree. A backend compiles the same tree, or asks it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .conditions import (
    AllOf,
    AnyOf,
    Compare,
    Comparison,
    Condition,
    Contains,
    Elements,
    Equal,
    Exists,
    Fields,
    Negation,
    Never,
    OneOf,
    holds,
    is_list,
    kind_of,
    size_of,
)

_MAX_DEPTH = 64
_LARGEST_FILTER = 10_000  # names and operands; PostgreSQL takes 65,535 parameters
_EVERYTHING = AllOf(())
_LARGEST = int(sys.float_info.max)  # no stored number is further from 0


def matches(value: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:
    """Whether an item with this value is found by a search with this filter.

    Raises `ValueError` for a filter that means nothing: an unknown operator, one mixed with plain keys, or an operand
    of the wrong type.
    """
    return holds(parse(filter), value)


def parse(filter: Mapping[str, Any] | None) -> AllOf:
    """The condition on an item's whole value; an empty filter holds always. `ValueError` as in `matches`."""
    if not filter:
        return _EVERYTHING
    condition = _filter(filter, 0)
    if size_of(condition) > _LARGEST_FILTER:
        raise ValueError(f"a filter has at most {_LARGEST_FILTER} names and operands; a list of $in counts as one")
    return condition


def is_storable(text: str) -> bool:
    """Whether it can be in a stored value: no U+0000, no lone surrogate."""
    if "\x00" in text:
        return False
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _filter(filter: Any, depth: int) -> AllOf:
    fields: list[tuple[str, Condition]] = []
    conditions: list[Condition] = []
    for name, operand in _mapping("a filter", filter, depth).items():
        if name in _LOGICAL:
            conditions.append(_LOGICAL[name](operand, depth + 1))
        elif name.startswith("$"):
            raise ValueError(f"Unsupported operator: {name}")
        else:
            fields.append((name, _condition(operand, depth + 1)))
    return AllOf((*conditions, Fields(tuple(fields))) if fields else tuple(conditions))


def _all(operand: Any, depth: int) -> Condition:
    return AllOf(tuple(_filter(one, depth) for one in _operands("$and", operand)))


def _any(operand: Any, depth: int) -> Condition:
    return AnyOf(tuple(_filter(one, depth) for one in _operands("$or", operand)))


def _not(operand: Any, depth: int) -> Condition:
    return Negation(_filter(operand, depth))


_LOGICAL: Mapping[str, Callable[[Any, int], Condition]] = {"$and": _all, "$or": _any, "$not": _not}


def _condition(operand: Any, depth: int) -> Condition:
    if isinstance(operand, Mapping):
        named = _mapping("a condition", operand, depth)
        if any(name.startswith("$") for name in named):
            return AllOf(tuple(_operation(name, one, depth + 1) for name, one in named.items()))
        return Fields(tuple((name, _condition(one, depth + 1)) for name, one in named.items()))
    if is_list(operand):
        _check_depth(depth)
        return Elements(tuple(_condition(one, depth + 1) for one in operand))
    return _equal(operand)


def _operation(operator: str, operand: Any, depth: int) -> Condition:
    match operator:
        case "$eq":
            return _equal(operand)
        case "$ne":
            return Negation(_equal(operand))
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _comparison(operator, operand)
        case "$in":
            return _one_of(_operands(operator, operand))
        case "$nin":
            return Negation(_one_of(_operands(operator, operand)))
        case "$exists":
            return _exists(operand)
        case "$contains":
            return Contains(operand) if _can_be_stored(operand, 0) else Never()
        case "$not":
            return Negation(_condition(operand, depth))
        case _:
            raise ValueError(f"Unsupported operator: {operator}")


def _equal(operand: Any) -> Condition:
    return Equal(operand) if _can_be_stored(operand, 0) else Never()


def _one_of(operands: Iterable[Any]) -> Condition:
    storable = tuple(one for one in operands if _can_be_stored(one, 0))
    return OneOf(storable) if storable else Never()


def _comparison(operator: Comparison, operand: Any) -> Condition:
    kind = kind_of(operand)
    if kind == "number" and isinstance(operand, int) and abs(operand) > _LARGEST:
        return Compare(operator, math.inf if operand > 0 else -math.inf)
    if kind == "number" and operand == operand:  # NaN is not equal to itself
        return Compare(operator, operand)
    if isinstance(operand, str) and is_storable(operand):
        return Compare(operator, operand)
    return Never()


def _exists(operand: Any) -> Condition:
    if not isinstance(operand, bool):
        raise ValueError(f"$exists takes a bool, not {type(operand).__name__}")  # noqa: TRY004  # all refusals are ValueError
    return Exists() if operand else Negation(Exists())


def _operands(operator: str, operand: Any) -> Sequence[Any]:
    if not isinstance(operand, (list, tuple)):
        raise ValueError(f"{operator} takes a list, not {type(operand).__name__}")  # noqa: TRY004  # as above
    return operand


def _mapping(what: str, value: Any, depth: int) -> Mapping[str, Any]:
    _check_depth(depth)
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a mapping, not {type(value).__name__}")  # noqa: TRY004  # as above
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"a key of {what} must be a text, not {type(name).__name__}")  # noqa: TRY004  # as above
    return value


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"a filter may be {_MAX_DEPTH} levels deep")


def _can_be_stored(operand: Any, depth: int) -> bool:
    """Whether some stored value could equal it; `ValueError` for what is not JSON at all."""
    _check_depth(depth)
    match kind_of(operand):
        case "string":
            return is_storable(operand)
        case "number":
            return bool(abs(operand) <= _LARGEST)
        case "array":
            return all(_can_be_stored(one, depth + 1) for one in operand)
        case "object":
            named = _mapping("an operand", operand, depth)
            return all(is_storable(name) and _can_be_stored(one, depth + 1) for name, one in named.items())
        case _:
            return True
