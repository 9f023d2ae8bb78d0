"""What a filter demands of every value it holds for: for an index, or a cheap look, before the exact question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .conditions import AllOf, Condition, Equal, Fields
from .filters import is_storable


def demanded(condition: AllOf) -> Iterator[tuple[str, Condition]]:
    """Names of the top level and what their values must satisfy, all of it. More may be demanded than is told."""
    for one in condition.conditions:
        if isinstance(one, Fields):
            for name, inner in one.conditions:
                if not is_storable(name):
                    continue  # no value has it: what is missing is null
                yield from ((name, part) for part in _parts(inner))
        elif isinstance(one, AllOf):
            yield from demanded(one)


def demanded_scalars(condition: AllOf) -> Iterator[tuple[str, Any]]:
    """Names of the top level that must be there and equal to this text or boolean."""
    for name, inner in demanded(condition):
        if isinstance(inner, Equal) and isinstance(inner.operand, (str, bool)):
            yield name, inner.operand


def _parts(condition: Condition) -> Iterator[Condition]:
    """A condition that has parts only because several operators stood together."""
    if isinstance(condition, AllOf):
        for part in condition.conditions:
            yield from _parts(part)
    else:
        yield condition
