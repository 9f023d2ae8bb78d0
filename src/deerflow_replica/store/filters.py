"""What a search filter means: one reading of it, and the pure reference that every backend equals.

`parse` turns a filter into a tree of conditions; `matches` asks the tree. A backend compiles the same tree, or asks it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Comparison: TypeAlias = Literal["$gt", "$gte", "$lt", "$lte"]

_MAX_DEPTH = 64
_LARGEST = int(sys.float_info.max)  # no stored number is further from 0


@dataclass(frozen=True, slots=True)
class Equal:
    """Deep JSON equality of the whole value; what is missing reads as null."""

    operand: Any


@dataclass(frozen=True, slots=True)
class Never:
    """For operands that no stored value can equal, or that nothing can be compared with."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Numbers with a number, which may be infinite; strings with a string, by code point."""

    operator: Comparison
    operand: float | int | str


@dataclass(frozen=True, slots=True)
class Exists:
    """The key is there, null or not."""


@dataclass(frozen=True, slots=True)
class Contains:
    """A list that holds an equal element, or a string that holds the operand string."""

    operand: Any


@dataclass(frozen=True, slots=True)
class Elements:
    """A list of this length, element by element."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """An object of which every named key satisfies its condition."""

    conditions: tuple[tuple[str, Condition], ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    condition: Condition


Condition: TypeAlias = (
    Equal | Never | Compare | Exists | Contains | Elements | Fields | AllOf | AnyOf | Negation
)  # every one holds or does not: there is no third outcome


class Missing:
    """The type of `MISSING`, what a key reads as that is not there."""


MISSING = Missing()


def matches(value: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:
    """Whether an item with this value is found by a search with this filter.

    Raises `ValueError` for a filter that means nothing: an unknown operator, one mixed with plain keys, or an operand
    of the wrong type.
    """
    return holds(parse(filter), value)


def parse(filter: Mapping[str, Any] | None) -> AllOf:
    """The condition on an item's whole value; an empty filter holds always. `ValueError` as in `matches`."""
    return _filter(filter or {}, 0)


def is_storable(text: str) -> bool:
    """Whether it can be in a stored value: no U+0000, no lone surrogate."""
    if "\x00" in text:
        return False
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def holds(condition: Condition, value: Any) -> bool:
    """Whether a JSON value, or `MISSING`, satisfies the condition."""
    match condition:
        case AllOf(conditions):
            return all(holds(one, value) for one in conditions)
        case AnyOf(conditions):
            return any(holds(one, value) for one in conditions)
        case Negation(inner):
            return not holds(inner, value)
        case Fields(fields):
            return isinstance(value, Mapping) and all(holds(one, value.get(name, MISSING)) for name, one in fields)
        case Elements(elements):
            return is_list(value) and len(value) == len(elements) and all(map(holds, elements, value))
        case Equal(operand):
            return are_equal(None if value is MISSING else value, operand)
        case Compare(operator, operand):
            return _compares(operator, value, operand)
        case Contains(operand):
            return _contains(value, operand)
        case Exists():
            return value is not MISSING
        case Never():
            return False


def are_equal(left: Any, right: Any) -> bool:
    """JSON equality: types never mix, but 1 is 1.0."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(are_equal(one, right[name]) for name, one in left.items())
    if is_list(left) and is_list(right):
        return len(left) == len(right) and all(map(are_equal, left, right))
    if is_number(left) and is_number(right):
        return bool(left == right)
    return kind_of(left) == kind_of(right) and bool(left == right)


def is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def kind_of(value: Any) -> str:
    """The JSON type: `null, boolean, number, string, array` or `object`; `ValueError` for anything else."""
    if value is None:
        return "null"
    for kinds, name in (
        (bool, "boolean"),
        ((int, float), "number"),
        (str, "string"),
        ((list, tuple), "array"),
        (Mapping, "object"),
    ):
        if isinstance(value, kinds):
            return name
    raise ValueError(f"{type(value).__name__} is no JSON value")


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
            return AnyOf(tuple(_equal(one) for one in _operands(operator, operand)))
        case "$nin":
            return Negation(AnyOf(tuple(_equal(one) for one in _operands(operator, operand))))
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


def _compares(operator: Comparison, value: Any, operand: Any) -> bool:
    if isinstance(operand, str) != isinstance(value, str) or not (isinstance(value, str) or is_number(value)):
        return False
    if operator == "$gt":
        return bool(value > operand)
    if operator == "$gte":
        return bool(value >= operand)
    if operator == "$lt":
        return bool(value < operand)
    return bool(value <= operand)


def _contains(value: Any, operand: Any) -> bool:
    if isinstance(value, str):
        return isinstance(operand, str) and operand in value
    return is_list(value) and any(are_equal(one, operand) for one in value)
