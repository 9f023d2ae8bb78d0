"""How near two vectors are, for stores that look at each of them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from operator import mul, sub

Measure = Callable[[Sequence[float], Sequence[float]], float]


def packed(vector: Sequence[float]) -> bytes:
    """As 32-bit floats."""
    return array("f", vector).tobytes()


def unpacked(vector: bytes) -> Sequence[float]:
    return array("f", vector)


def _inner_product(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(mul, one, other)))


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """0 for a vector without a direction."""
    lengths = math.hypot(*one) * math.hypot(*other)
    return _inner_product(one, other) / lengths if lengths else 0.0


def _negative_distance(one: Sequence[float], other: Sequence[float]) -> float:
    return -math.hypot(*map(sub, one, other))


MEASURES: Mapping[str, Measure] = {"cosine": _cosine, "inner_product": _inner_product, "l2": _negative_distance}
"""By `distance_type`; the greater the nearer."""
