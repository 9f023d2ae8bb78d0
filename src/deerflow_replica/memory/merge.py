"""The three-way merge of memory documents. Pure: no I/O, and its arguments stay as they are."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

Fact = dict[str, Any]
Facts = dict[Hashable, Fact]


_ABSENT: Final = object()
"""Nothing there: None is a value that a document may hold."""

_SECTIONS = ("user", "history")


def merge_memory(
    base: dict[str, Any] | None,
    theirs: dict[str, Any],
    ours: dict[str, Any],
    *,
    max_facts: int | None = None,
) -> dict[str, Any]:
    """What comes of two documents that both grew out of `base`; a new document, in the order theirs, then ours.

    A change on one side wins over no change, and over a deletion. Of two changes the later `updatedAt` (else
    `createdAt`) wins, ours if equal. New facts of both sides stay; two with the same content (case and spaces folded)
    become one, theirs, with the higher confidence. Without `base` nothing is deleted. `max_facts` drops the facts
    of lowest confidence, then the oldest.
    """
    merged = _merge_keys(base or {}, theirs, ours, leave=(*_SECTIONS, "facts"))
    for section in _SECTIONS:
        _set(
            merged,
            section,
            _merge_section(*(document.get(section, _ABSENT) for document in (base or {}, theirs, ours))),
        )
    facts = _merge_facts(_facts(base or {}), _facts(theirs), _facts(ours))
    if facts or "facts" in theirs or "facts" in ours:
        merged["facts"] = facts if max_facts is None else _strongest(facts, max_facts)
    return copy.deepcopy(merged)


def fold(content: object) -> str:
    """Content without what does not make a difference: case and spaces."""
    return " ".join(str(content).casefold().split())


def _merge_keys(
    base: Mapping[str, Any], theirs: Mapping[str, Any], ours: Mapping[str, Any], leave: tuple[str, ...] = ()
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in dict.fromkeys([*theirs, *ours]):
        if key not in leave:
            _set(merged, key, _choose(base.get(key, _ABSENT), theirs.get(key, _ABSENT), ours.get(key, _ABSENT)))
    return merged


def _merge_section(base: object, theirs: object, ours: object) -> object:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return _merge_keys(base if isinstance(base, dict) else {}, theirs, ours)
    return _choose(base, theirs, ours)


def _merge_facts(base: Facts, theirs: Facts, ours: Facts) -> list[Fact]:
    merged: dict[Hashable, Any] = {}
    for key in dict.fromkeys([*theirs, *ours]):
        _set(merged, key, _choose(*(side.get(key, _ABSENT) for side in (base, theirs, ours))))
    _fold_twins(merged, base, theirs, ours)
    return list(merged.values())


def _fold_twins(merged: dict[Hashable, Any], base: Facts, theirs: Facts, ours: Facts) -> None:
    """Two additions with one content become one."""
    twins = {_content(theirs[key]): key for key in reversed(theirs) if key not in base and key not in ours}
    for key in [key for key in ours if key not in base and key not in theirs]:
        content = _content(ours[key])
        if content is not None and content in twins:
            merged[twins[content]] = _surer(merged[twins[content]], merged.pop(key))


def _content(fact: Fact) -> str | None:
    content = fact.get("content")
    return fold(content) if isinstance(content, str) else None


def _surer(fact: Fact, other: Fact) -> Fact:
    return {**fact, "confidence": other["confidence"]} if confidence_of(other) > confidence_of(fact) else fact


def _choose(base: Any, theirs: Any, ours: Any) -> Any:
    if theirs == base:
        return ours
    if ours == base or ours is _ABSENT:
        return theirs
    if theirs is _ABSENT:
        return ours
    return theirs if _changed_at(theirs) > _changed_at(ours) else ours


def _set(target: dict[Any, Any], key: Hashable, value: object) -> None:
    if value is not _ABSENT:
        target[key] = value


def _facts(document: Mapping[str, Any]) -> Facts:
    """Facts by id; one without an id by its content, and by its number among equal ones."""
    seen: Counter[str] = Counter()
    facts: Facts = {}
    for fact in document.get("facts", []):
        facts[_fact_key(fact, seen)] = fact
    return facts


def _fact_key(fact: Fact, seen: Counter[str]) -> Hashable:
    if fact.get("id") is not None:
        return "id", str(fact["id"])
    content = fold(fact.get("content"))
    seen[content] += 1
    return "content", content, seen[content]


def _strongest(facts: list[Fact], count: int) -> list[Fact]:
    ranked = sorted(range(len(facts)), key=lambda index: (confidence_of(facts[index]), _changed_at(facts[index])))
    kept = set(ranked[max(0, len(facts) - count) :])
    return [fact for index, fact in enumerate(facts) if index in kept]


def confidence_of(fact: Mapping[str, Any]) -> float:
    """The fact's confidence as a number; below every real one if it has none."""
    value = fact.get("confidence")
    if not isinstance(value, int | float):
        return float("-inf")
    try:
        return float(value)
    except OverflowError:  # an int of hundreds of digits
        return float("inf" if value > 0 else "-inf")


def _changed_at(value: object) -> float:
    """Seconds since 1970, before every time if there is none to read."""
    if not isinstance(value, Mapping):
        return float("-inf")
    return next(_seconds([value.get("updatedAt"), value.get("createdAt")]), float("-inf"))


def _seconds(times: Iterable[object]) -> Iterator[float]:
    for text in times:
        if isinstance(text, str) and text:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                continue
            yield (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
