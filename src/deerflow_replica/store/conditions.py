"""A filter read: a tree of conditions, what each means, and when two JSON values are equal."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Comparison: TypeAlias = Literal["$gt", "$gte", "$lt", "$lte"]


@dataclass(frozen=True, slots=True)
class Equal:
    """Deep JSON equality of the whole value; what is missing reads as null."""

    operand: Any


@dataclass(frozen=True, slots=True)
class OneOf:
    """`Equal` to any of the operands."""

    operands: tuple[Any, ...]
    keys: frozenset[Hashable] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", frozenset(map(key_of, self.operands)))


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
    Equal | OneOf | Never | Compare | Exists | Contains | Elements | Fields | AllOf | AnyOf | Negation
)  # every one holds or does not: there is no third outcome


class Missing:
    """The type of `MISSING`, what a key reads as that is not there."""


MISSING = Missing()


def size_of(condition: Condition) -> int:
    """How many names and operands it consists of."""
    match condition:
        case AllOf(conditions) | AnyOf(conditions) | Elements(conditions):
            return sum(map(size_of, conditions)) or 1
        case Fields(fields):
            return sum(1 + size_of(one) for _, one in fields) or 1
        case Negation(inner):
            return size_of(inner)
        case _:
            return 1


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
        case OneOf():
            return key_of(None if value is MISSING else value) in condition.keys
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


def key_of(value: Any) -> Hashable:
    """The same for JSON values that are equal, and for no others."""
    if isinstance(value, str):
        return str.__str__(value)
    if is_number(value):
        return value  # type: ignore[no-any-return]  # 1 and 1.0 are equal, and have one hash
    if is_list(value):
        return "array", tuple(map(key_of, value))
    if isinstance(value, Mapping):
        return "object", frozenset((name, key_of(one)) for name, one in value.items())
    return (kind_of(value), value)


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
