"""Event data as JSON bytes: one table of rules for every backend, and never a silent `str()`."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections import deque
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson
from langgraph.types import Send
from pydantic import BaseModel, SecretBytes, SecretStr

MAX_DEPTH = 250
_INT64 = range(-(2**63), 2**63)
_ARRAYS = (list, tuple, set, frozenset, deque)
_AS_TEXT = (
    UUID,
    PurePath,
    Decimal,
    IPv4Address,
    IPv6Address,
    IPv4Network,
    IPv6Network,
    IPv4Interface,
    IPv6Interface,
)
# Strict integers and plain keys only: what they refuse is decided by the slow walk, which knows all the rules.
_FAST = (
    orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)


def encode_payload(data: Any, *, run_id: str, event: str) -> bytes:
    """`data` as one line of JSON, by the rules of `encode_plain`. `TypeError` names the run and the event, too."""
    try:
        return encode_plain(data)
    except TypeError as error:
        raise TypeError(f"event {event!r} of run {run_id!r}: {error}") from error


def encode_plain(data: Any) -> bytes:
    """`data` as one line of JSON.

    NaN and infinity become null and a lone surrogate U+FFFD, because one bad token must not kill a run. Anything else
    without a JSON form (an unknown type, an integer beyond 64 bits, keys that become equal, a cycle, more than 250
    levels) raises `TypeError` naming it.
    """
    try:
        encoded = orjson.dumps(data, default=_plain, option=_FAST)
        if _brackets(encoded) <= MAX_DEPTH:
            return encoded
        _check_depth(orjson.loads(encoded))
    except TypeError:
        pass  # not plain enough for the fast path, or wrong: the walk below says which
    else:
        return encoded
    try:
        return orjson.dumps(_plain(data))
    except Exception as error:  # a mapping's own code runs here, which may raise anything
        raise TypeError(str(error)) from error


def _brackets(encoded: bytes) -> int:
    # Four times as fast as `count`, which looks at every byte by itself.
    return len(encoded) - len(encoded.replace(b"[", b"").replace(b"{", b""))


def _check_depth(decoded: Any) -> None:
    level = [decoded]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for value in level:
            inside.extend(value.values() if isinstance(value, dict) else value)
        level = [value for value in inside if isinstance(value, (dict, list))]
        if not level:
            return
    raise TypeError("too deep")


def _plain(value: Any, depth: int = 0) -> Any:
    """The value in the types that JSON has, copied where anything inside had to change."""
    value = _reduced(value)
    is_mapping = isinstance(value, Mapping)
    if not is_mapping and not isinstance(value, _ARRAYS):
        return value
    if depth >= MAX_DEPTH:
        raise TypeError(f"{type(value).__name__} is nested deeper than {MAX_DEPTH} levels, or contains itself")
    # Few frames per level: 250 levels have to fit in what the caller left of the interpreter's stack.
    return _object(value, depth) if is_mapping else [_plain(member, depth + 1) for member in value]


def _reduced(value: Any) -> Any:
    """What the value stands for: a JSON scalar, a mapping or an array."""
    for _ in range(MAX_DEPTH):
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (str, int, float)) and not isinstance(value, Enum):
            return _scalar(value)
        if isinstance(value, Mapping) or (isinstance(value, _ARRAYS) and not hasattr(value, "_fields")):
            return value
        try:
            value = _converted(value)
        except TypeError:
            raise
        except Exception as error:  # the object's own code runs here, which may raise anything
            raise TypeError(f"{type(value).__name__} cannot be taken apart: {error!r}") from error
    raise TypeError(f"{type(value).__name__} stands for itself")


def _scalar(value: str | float) -> str | int | float | None:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        if value not in _INT64:
            raise TypeError(f"int {_shortened(value)} does not fit 64 bits")
        return int(value)
    return float(value) if math.isfinite(value) else None


def _shortened(value: int) -> str:
    return f"of {value.bit_length()} bits" if value.bit_length() > 128 else str(int(value))


def _text(value: str) -> str:
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= mark <= "\udfff" else mark for mark in plain)
    return plain


def _object(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, member in value.items():
        name = _key(key)
        if name in result:
            raise TypeError(f"two keys of one {type(value).__name__} become {name!r}")
        result[name] = _plain(member, depth + 1)
    return result


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        return _key(key.value)
    if isinstance(key, str):
        return _text(key)
    if key is None or isinstance(key, (bool, int, float)):
        # json.dumps has the rules for these as keys, NaN and all.
        return json.dumps(key)
    if isinstance(key, (date, time)):
        return key.isoformat()
    if isinstance(key, UUID):
        return str(key)
    raise TypeError(f"{type(key).__name__} cannot be a key")


def _converted(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, (SecretStr, SecretBytes)):
        return "**********" if value.get_secret_value() else ""
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "message": str(value)}
    return _fields(value)


def _fields(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Send):
        return {"node": value.node, "args": value.arg}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return dict(zip(value._fields, value, strict=True))  # type: ignore[attr-defined]  # a named tuple
    raise TypeError(f"{type(value).__name__} has no JSON form")
