"""The rules for what callers pass in. Everything here raises `ValueError`, before anything is written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

MAX_METADATA_BYTES = 65_536
MAX_METADATA_DEPTH = 200
MAX_IDS = 1000
MAX_MICROSECONDS = 253_402_300_799_999_999  # the last microsecond that a datetime can show

_UNFIT_IN_IDS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_UNFIT_IN_TEXT = re.compile("[\x00\ud800-\udfff]")
_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")


def thread_key(value: object) -> str:
    """A thread id as text: 1 to 255 characters, no control character, no lone surrogate."""
    return user_key(str(value) if isinstance(value, UUID) else value, "thread_id")


def user_key(value: object, name: str = "user_id") -> str:
    """A user id, by the same rule; None is never a bypass."""
    if not isinstance(value, str) or not 1 <= len(value) <= 255:
        raise ValueError(f"{name} must be a text of 1 to 255 characters")
    if _UNFIT_IN_IDS.search(value):
        raise ValueError(f"{name} must not contain control characters or lone surrogates")
    return str.__str__(value)


def thread_keys(values: Iterable[object]) -> list[str]:
    if isinstance(values, str):
        raise ValueError("thread ids must be a sequence of ids, not one text")  # noqa: TRY004  # all refusals are ValueError
    return [thread_key(value) for value in values]


def claimed_keys(values: Iterable[object]) -> list[str]:
    keys = thread_keys(values)
    if len(keys) > MAX_IDS:
        raise ValueError(f"at most {MAX_IDS} thread ids at once, got {len(keys)}")
    return keys


def text(name: str, value: object, longest: int, *, shortest: int = 0) -> str:
    """Free text without NUL and lone surrogates; as an exact `str`, which every driver takes."""
    if not isinstance(value, str) or not shortest <= len(value) <= longest:
        raise ValueError(f"{name} must be a text of {shortest} to {longest} characters")
    if _UNFIT_IN_TEXT.search(value):
        raise ValueError(f"{name} must not contain NUL or a lone surrogate")
    return str.__str__(value)


def optional_text(name: str, value: object, longest: int) -> str | None:
    return None if value is None else text(name, value, longest)


def status_text(value: object) -> str:
    return text("status", value, 64, shortest=1)


def tenant_name(value: object) -> str:
    if not isinstance(value, str) or not _TENANT.fullmatch(value):
        raise ValueError("tenant must be 1 to 64 of A-Z a-z 0-9 . _ -")
    return str.__str__(value)


def table_name(value: object) -> str:
    if not isinstance(value, str) or not _TABLE.fullmatch(value):
        raise ValueError("table must match [A-Za-z_][A-Za-z0-9_]{0,47}")
    return str.__str__(value)


def whole_number(name: str, value: object, smallest: int, largest: int | None = None) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be an int")  # noqa: TRY004  # all refusals are ValueError
    if value < smallest or (largest is not None and value > largest):
        raise ValueError(f"{name} must be {smallest} to {largest}" if largest else f"{name} must be >= {smallest}")
    return int(value)


def optional_version(value: object) -> int | None:
    return None if value is None else whole_number("if_version", value, 0)


def micros(name: str, seconds: object, *, zero: bool = False) -> int:
    """A duration in seconds as whole microseconds, at least one (or 0 where `zero` is allowed)."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not _is_finite(seconds):
        raise ValueError(f"{name} must be a finite number of seconds")
    if seconds < 0 or (seconds == 0 and not zero):
        raise ValueError(f"{name} must be {'>= 0' if zero else '> 0'}")
    if seconds >= MAX_MICROSECONDS / 1_000_000:
        return MAX_MICROSECONDS
    return max(round(seconds * 1_000_000), 1 if seconds else 0)


def optional_micros(name: str, seconds: object) -> int | None:
    return None if seconds is None else micros(name, seconds)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}")
    return str(value)


def metadata_text(metadata: object, name: str = "metadata") -> str:
    """A JSON object as compact text, in the caller's key order."""
    if metadata is None or metadata == {}:
        return "{}"
    if not isinstance(metadata, Mapping):
        raise ValueError(f"{name} must be a JSON object")  # noqa: TRY004  # all refusals are ValueError
    return fitting(json_text(_plain(metadata, name, 1)))


def fitting(encoded: str) -> str:
    """The same text, refused when it is too large; also for what a merge makes."""
    if len(encoded.encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata must be at most {MAX_METADATA_BYTES} bytes as JSON")
    return encoded


def json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def metadata_keys(keys: Iterable[object]) -> tuple[str, ...]:
    if isinstance(keys, str):
        raise ValueError("remove_metadata must be a collection of keys, not one text")  # noqa: TRY004  # as above
    return tuple(text("a metadata key", key, MAX_METADATA_BYTES) for key in keys)


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def _plain(value: object, name: str, depth: int) -> Any:
    """A detached copy of plain JSON data. A cycle ends at the depth limit."""
    if depth > MAX_METADATA_DEPTH:
        raise ValueError(f"{name} is nested more than {MAX_METADATA_DEPTH} deep, or holds itself")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return text(name, value, MAX_METADATA_BYTES)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        return {text(f"a key of {name}", k, MAX_METADATA_BYTES): _plain(v, name, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, name, depth + 1) for item in value]
    raise ValueError(f"{name} must be JSON: {type(value).__name__} is not, nor is a number that is not finite")
