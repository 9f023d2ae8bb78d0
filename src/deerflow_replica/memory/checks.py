"""What a memory document may hold. Pure."""

from __future__ import annotations

import math
from typing import Any

Document = dict[str, Any]


def checked_copy(memory_data: object) -> Document:
    """A private copy of a memory document, made of plain JSON values; `ValueError` says what is wrong with it."""
    if not isinstance(memory_data, dict):
        raise ValueError(f"a memory document must be a dict, not {type(memory_data).__name__}")  # noqa: TRY004  # the contract's error
    try:
        document: Document = _plain(memory_data, "memory")
    except RecursionError:
        raise ValueError("a memory document must not be nested so deeply, or contain itself") from None
    check_document(document)
    return document


def check_document(document: Document) -> None:
    """`ValueError` unless `facts` and `revision`, where present, are what every reader expects."""
    if not is_revision(document.get("revision", 0)):
        raise ValueError(f"memory.revision must be an integer from 0 up, not {document['revision']!r}")
    facts = document.get("facts", [])
    if not isinstance(facts, list) or not all(isinstance(fact, dict) for fact in facts):
        raise ValueError("memory.facts must be a list of objects")
    _check_ids([fact["id"] for fact in facts if fact.get("id") is not None])


def is_revision(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_ids(ids: list[Any]) -> None:
    seen: set[str] = set()
    for fact_id in ids:
        if str(fact_id) in seen:
            raise ValueError(f"memory.facts has two facts with the id {fact_id!r}")
        seen.add(str(fact_id))


def _plain(value: object, place: str) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, dict):
        return {_key(key, place): _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise ValueError(f"{place} is no JSON value: {value!r}")


def _key(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{place} has a key that is no string: {key!r}")  # noqa: TRY004  # the contract's error
    return _text(key, place)


def _text(value: str, place: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place} holds text that is no Unicode: {value!r}") from None
    return value


def check_expected(revision: int | None) -> None:
    if revision is not None and not is_revision(revision):
        raise ValueError(f"an expected revision must be an integer from 0 up, not {revision!r}")
