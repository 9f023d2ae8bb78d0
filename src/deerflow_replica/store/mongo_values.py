"""Values as MongoDB's documents, and what a filter demands of them in MongoDB's own terms.

Names that mean something to MongoDB are escaped, so that a stored value looks like the value it is. What BSON cannot
hold as it is (large values may grow beyond its limit, it is 100 levels deep at most) is one JSON text instead.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from .conditions import AllOf, Compare, Condition, Equal, Exists, OneOf
from .prefilter import demanded

_LARGEST_AS_DOCUMENT = 2 * 2**20  # bytes of JSON; as BSON up to seven times as much: [0,0,0]
_LARGEST_QUESTION = 2**20  # bytes of JSON; one command takes 16 MiB, and more is asked with it
_MAX_DEPTH = 45  # lists in lists count twice
_MAX_INT = 2**63 - 1
_EXACT_BELOW = 2**53
_BIG_INT = "%int"  # no escaped names: there "%" is always followed by two digits, or stands alone
_INNER_LIST = "%list"  # directly in a list: FerretDB stores none
_PUT = "%put"  # of the whole value; FerretDB writes no document whose values are the old one's, whatever their names
_SPECIAL = re.compile(r"[$.%]")
_ESCAPE = re.compile(r"%([0-9A-F]{2})")


class _TooDeepError(Exception):
    pass


def to_stored(document: bytes) -> Any:
    """What is stored of a value given as JSON."""
    if len(document) > _LARGEST_AS_DOCUMENT:
        return document.decode()
    try:
        return _escaped(orjson.loads(document), 0) | {_PUT: secrets.randbits(53)}
    except _TooDeepError:
        return document.decode()


def from_stored(stored: Any) -> bytes | str:
    """The value as JSON."""
    if isinstance(stored, str):
        return stored
    return orjson.dumps({_plain_name(name): _plain(one) for name, one in stored.items() if name != _PUT})


def prefilter(condition: AllOf) -> dict[str, Any]:
    """Finds everything that the condition holds for, and perhaps more; empty when it would find all."""
    demands = list(_within(_LARGEST_QUESTION, _demands(condition)))
    return {"$or": [{"value": {"$type": "string"}}, {"$and": demands}]} if demands else {}


def _escaped(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        _check_depth(depth)
        return {_escaped_name(name): _escaped(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        _check_depth(depth)
        inner = [_escaped(one, depth + 1) for one in value]
        return [{_INNER_LIST: one} if isinstance(one, list) else one for one in inner]
    if isinstance(value, int) and value > _MAX_INT:
        return {_BIG_INT: str(value)}
    return value


def _plain(stored: Any) -> Any:
    if isinstance(stored, dict):
        if _BIG_INT in stored:
            return int(stored[_BIG_INT])
        if _INNER_LIST in stored:
            return _plain(stored[_INNER_LIST])
        return {_plain_name(name): _plain(one) for name, one in stored.items()}
    return [_plain(one) for one in stored] if isinstance(stored, list) else stored


def _escaped_name(name: str) -> str:
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", name) or "%"


def _plain_name(name: str) -> str:
    return "" if name == "%" else _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name)


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _TooDeepError


def _demands(condition: AllOf) -> Iterator[dict[str, Any]]:
    for name, inner in demanded(condition):
        yield from _demand(f"value.{_escaped_name(name)}", inner)


def _within(size: int, demands: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without those that do not fit any more."""
    for demand in demands:
        own = len(orjson.dumps(demand))
        if own <= size:
            size -= own
            yield demand


def _demand(path: str, condition: Condition) -> Iterator[dict[str, Any]]:
    match condition:
        case Equal(operand) if _is_simple(operand):
            yield {path: operand}
        case OneOf(operands) if all(map(_is_simple, operands)):
            yield {path: {"$in": list(operands)}}
        case Compare(operator, operand) if _is_simple(operand):
            yield {"$or": [{path: {operator: operand}}, {path: {"$type": "object"}}]}  # an integer beyond 63 bits
        case Exists():
            yield {path: {"$exists": True}}


def _is_simple(operand: Any) -> bool:
    """Whether MongoDB compares it as we do: its numbers are integers of 64 bits and doubles."""
    if isinstance(operand, (int, float)):
        return -_EXACT_BELOW < operand < _EXACT_BELOW
    return operand is None or isinstance(operand, str)
