"""A value as JSON text, checked before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

from .filters import is_storable

MAX_DOCUMENT_BYTES = 16 * 2**20

_MAX_DEPTH = 200  # orjson writes 254
_EXACT_BELOW = 2.0**53
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
_ZERO = b"\\u0000"  # U+0000
_LARGE = re.compile(rb"[0-9](?:e|[0-9]{15}\.0)")  # floats of 2**53 and more; what begins with a set is found fastest


def encoded(value: Mapping[str, Any], *, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """The JSON of a value.

    Raises `ValueError` for what is not JSON (a datetime, a set, a key that is no text, NaN, an integer beyond 64
    bits), for U+0000 and lone surrogates, and for more than `max_bytes`.
    """
    document = _at_once(value)
    if document is None:
        document = _checked(value)
    if len(document) > max_bytes:
        raise ValueError(f"a value has at most {max_bytes} bytes as JSON, not {len(document)}")
    return document


def _at_once(value: Any) -> bytes | None:
    """The JSON of what is beyond doubt: it reads back as it was. None for what must be looked at piece by piece."""
    if type(value) is not dict:
        return None
    try:
        document = orjson.dumps(value, option=_STRICT)
        is_plain = orjson.loads(document) == value
    except (orjson.JSONEncodeError, orjson.JSONDecodeError, RecursionError):
        return None
    return document if is_plain and _ZERO not in document and not _LARGE.search(document) else None


def _checked(value: Any) -> bytes:
    if not isinstance(value, Mapping):
        raise ValueError(f"a value must be a mapping, not {type(value).__name__}")  # noqa: TRY004  # all refusals are ValueError
    try:
        return orjson.dumps(_plain(value, 0))
    except orjson.JSONEncodeError as error:
        raise ValueError(f"a value must be JSON: {error}") from error


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() and "\x00" not in value else _text(value)
    if kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return _number(value)
    if depth >= _MAX_DEPTH:
        raise ValueError(f"a value is nested at most {_MAX_DEPTH} deep, and never holds itself")
    if kind is dict or isinstance(value, Mapping):
        return {_name(name): _plain(one, depth + 1) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, depth + 1) for one in value]
    return _of_subclass(value)


def _of_subclass(value: Any) -> Any:
    """What a text or number with a class of its own says in JSON, as `json.dumps` has it."""
    if isinstance(value, str):
        return _text(str.__str__(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _number(float(value))
    raise ValueError(f"a value must be JSON, which {type(value).__name__} is not")


def _name(name: Any) -> str:
    if type(name) is str and name.isascii() and "\x00" not in name:
        return name
    if not isinstance(name, str):
        raise ValueError(f"a key of a value must be a text, not {type(name).__name__}")  # noqa: TRY004  # as above
    return _text(str.__str__(name))


def _text(text: str) -> str:
    if not is_storable(text):
        raise ValueError("a value holds no U+0000 and no lone surrogate")
    return text


def _number(number: float) -> float | orjson.Fragment:
    if -_EXACT_BELOW < number < _EXACT_BELOW:
        return number
    if not math.isfinite(number):
        raise ValueError("a value holds finite numbers only")
    return orjson.Fragment(number_text(number))


def number_text(number: float) -> str:
    """With every digit where the short form, `1e+16`, is read back as an integer, or as a neighbour, by some."""
    return repr(number) if -_EXACT_BELOW < number < _EXACT_BELOW else f"{number:.1f}"
