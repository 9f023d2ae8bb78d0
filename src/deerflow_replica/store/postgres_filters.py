"""A filter's conditions as PostgreSQL's, over jsonb. Every expression is true or false, never null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from .conditions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Contains,
    Elements,
    Equal,
    Exists,
    Fields,
    Negation,
    OneOf,
    is_number,
    kind_of,
)
from .documents import number_text
from .filters import is_storable

_OPERATORS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


class Compilation:
    """The expression, and its parameters by name."""

    def __init__(self, condition: AllOf, column: str) -> None:
        self.parameters: dict[str, Any] = {}
        self.text = self._of(condition, column)

    def _of(self, condition: Condition, subject: str) -> str:
        match condition:
            case AllOf(conditions):
                return _joined(" AND ", [self._of(one, subject) for one in conditions], "true")
            case AnyOf(conditions):
                return _joined(" OR ", [self._of(one, subject) for one in conditions], "false")
            case Negation(inner):
                return f"NOT {self._of(inner, subject)}"
            case Equal(operand):
                return f"(COALESCE({subject}, 'null'::jsonb) = {self._json(operand)})"
            case OneOf(operands):
                listed = f"SELECT jsonb_array_elements({self._json(operands)})"
                return f"(COALESCE({subject}, 'null'::jsonb) IN ({listed}))"
            case Exists():
                return f"({subject} IS NOT NULL)"
            case Compare(operator, operand):
                return self._compare(_OPERATORS[operator], operand, subject)
            case Contains(operand):
                return self._contains(operand, subject)
            case Elements(elements):
                return self._elements(elements, subject)
            case Fields(fields):
                return self._fields(fields, subject)
            case _:
                return "false"

    def _compare(self, operator: str, operand: float | str, subject: str) -> str:
        if isinstance(operand, str):
            text = f"({subject} #>> '{{}}') COLLATE \"C\""
            return _if_type("string", subject, f"{text} {operator} {self._text(operand)}")
        if math.isinf(operand):
            return _if_type("number", subject, "true" if (operand > 0) == (operator in ("<", "<=")) else "false")
        return _if_type("number", subject, f"{subject} {operator} {self._json(operand)}")

    def _contains(self, operand: Any, subject: str) -> str:
        held = _if_type("array", subject, self._holds_element(operand, subject))
        if not isinstance(operand, str):
            return held
        inside = f"strpos(({subject} #>> '{{}}') COLLATE \"C\", {self._text(operand)}) > 0"
        return f"({held} OR {_if_type('string', subject, inside)})"

    def _holds_element(self, operand: Any, subject: str) -> str:
        if kind_of(operand) in ("array", "object"):  # of which @> would be content with a part
            return f"{self._json(operand)} IN (SELECT jsonb_array_elements({subject}))"
        return f"{subject} @> {self._json([operand])}"

    def _elements(self, elements: tuple[Condition, ...], subject: str) -> str:
        each = [self._of(one, f"({subject} -> {place})") for place, one in enumerate(elements)]
        return _if_type(
            "array", subject, _joined(" AND ", [f"(jsonb_array_length({subject}) = {len(elements)})", *each], "true")
        )

    def _fields(self, fields: tuple[tuple[str, Condition], ...], subject: str) -> str:
        each = [
            self._of(one, f"({subject} -> {self._text(name)})" if is_storable(name) else "NULL::jsonb")
            for name, one in fields
        ]
        return _if_type("object", subject, _joined(" AND ", each, "true"))

    def _json(self, operand: Any) -> str:
        return f"{self._named(json_text(operand))}::jsonb"

    def _text(self, operand: str) -> str:
        return f"{self._named(operand)}::text"

    def _named(self, value: str) -> str:
        name = f"filter_{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s"


def json_text(operand: Any) -> str:
    """Integers of any size, and floats with every digit that the stored ones have."""
    if is_number(operand):
        return str(int(operand)) if isinstance(operand, int) else number_text(operand)
    if isinstance(operand, (list, tuple)):
        return f"[{','.join(map(json_text, operand))}]"
    if isinstance(operand, Mapping):
        return f"{{{','.join(f'{json_text(str(name))}:{json_text(one)}' for name, one in operand.items())}}}"
    return orjson.dumps(operand).decode()


def _if_type(kind: str, subject: str, expression: str) -> str:
    """CASE, because AND may ask both sides: what follows it fails on other types."""
    return f"(CASE WHEN jsonb_typeof({subject}) = '{kind}' THEN {expression} ELSE false END)"


def _joined(word: str, expressions: list[str], empty: str) -> str:
    return f"({word.join(expressions)})" if expressions else empty
