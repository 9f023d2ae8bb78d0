"""Change sets: single facts and summaries, each with the revision it was seen at. Pure rules, no I/O."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import VersionConflictError
from .checks import Document, checked_copy, is_revision

Fact = dict[str, Any]

_SECTIONS = ("user", "history")


@dataclass(frozen=True)
class ChangeSet:
    """A checked change set. A revision of None means that the fact must not exist yet."""

    upserts: tuple[Fact, ...]
    upsert_revisions: dict[str, int | None]
    deletes: tuple[str, ...]
    delete_revisions: dict[str, int | None]
    summaries: dict[str, Any]

    @property
    def is_point_change(self) -> bool:
        """Whether every fact says what it was derived from, so that changes of other facts do not matter to it."""
        upserted = all(fact["id"] in self.upsert_revisions for fact in self.upserts)
        return upserted and all(fact_id in self.delete_revisions for fact_id in self.deletes) and not self.summaries


def parse_changes(change_set: Mapping[str, Any]) -> ChangeSet:
    """`ValueError` for what is no change set, for one id twice, and for one both upserted and deleted."""
    data = checked_copy(dict(change_set))
    upserts = tuple(_with_id(fact) for fact in _list(data, "upserts", dict))
    deletes = tuple(_list(data, "deletes", str))
    _refuse_twice([*(fact["id"] for fact in upserts), *deletes])
    stated = {fact["id"]: fact["revision"] for fact in upserts if "revision" in fact}
    return ChangeSet(
        upserts,
        _revisions({**stated, **_mapping(data, "upsertRevisions")}),
        deletes,
        _revisions(_mapping(data, "deleteRevisions")),
        _summaries(_mapping(data, "summaries")),
    )


def apply_to(document: Document, changes: ChangeSet) -> tuple[Document, list[Fact], list[str]]:
    """The changed document, the facts as stored, and the ids that were there to delete.

    `VersionConflictError` of kind "fact" when a fact is not at the revision its change was derived from.
    """
    present: dict[str, Fact] = {
        str(fact["id"]): fact for fact in document.get("facts", []) if fact.get("id") is not None
    }
    _check_revisions(present, changes.upsert_revisions, (fact["id"] for fact in changes.upserts))
    _check_revisions(present, changes.delete_revisions, (fact_id for fact_id in changes.deletes if fact_id in present))
    upserted = {fact["id"]: _next(present.get(fact["id"]), fact) for fact in changes.upserts}
    deleted = [fact_id for fact_id in changes.deletes if fact_id in present]
    facts = _facts(document.get("facts", []), upserted, deleted)
    sections = {name: {**document.get(name, {}), **changes.summaries[name]} for name in changes.summaries}
    return {**document, **sections, "facts": facts}, list(upserted.values()), deleted


def _facts(facts: list[Fact], upserted: Mapping[str, Fact], deleted: list[str]) -> list[Fact]:
    ids = [None if fact.get("id") is None else str(fact["id"]) for fact in facts]
    gone, known = set(deleted), set(ids)
    kept = [
        fact if key is None else upserted.get(key, fact)
        for key, fact in zip(ids, facts, strict=True)
        if key not in gone
    ]
    return [*kept, *(fact for key, fact in upserted.items() if key not in known)]


def _next(present: Fact | None, fact: Fact) -> Fact:
    if present is None:
        return {**fact, "revision": 1}
    created = {"createdAt": present["createdAt"]} if "createdAt" in present else {}
    grown = _revision(present) + (present.get("content") != fact.get("content"))
    return {**created, **fact, "revision": grown}


def _check_revisions(present: Mapping[str, Fact], revisions: Mapping[str, int | None], ids: Iterable[str]) -> None:
    for fact_id in ids:
        current = _revision(present[fact_id]) if fact_id in present else None
        if fact_id in revisions and revisions[fact_id] != current:
            raise VersionConflictError(
                f"fact {fact_id!r} is at revision {current}, not {revisions[fact_id]}", current=current, kind="fact"
            )


def _revision(fact: Fact) -> int:
    """A fact that was only ever saved with its whole document counts as its first revision."""
    return fact["revision"] if is_revision(fact.get("revision")) else 1


def _with_id(fact: Fact) -> Fact:
    return {**fact, "id": str(fact.get("id") or f"fact_{secrets.token_hex(16)}")}


def _list(data: Document, name: str, kind: type) -> list[Any]:
    value = data.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise ValueError(f"change_set.{name} must be a list of {'objects' if kind is dict else 'strings'}")
    return value


def _mapping(data: Document, name: str) -> dict[str, Any]:
    value = data.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"change_set.{name} must be an object")
    return value or {}


def _revisions(revisions: dict[str, Any]) -> dict[str, int | None]:
    for fact_id, revision in revisions.items():
        if revision is not None and not (is_revision(revision) and revision):
            raise ValueError(f"the revision of fact {fact_id!r} must be null or an integer from 1 up, not {revision!r}")
    return revisions


def _summaries(summaries: dict[str, Any]) -> dict[str, Any]:
    for name, section in summaries.items():
        if name not in _SECTIONS or not isinstance(section, dict):
            raise ValueError(
                f"change_set.summaries may hold the objects 'user' and 'history', not {name!r}: {section!r}"
            )
    return summaries


def _refuse_twice(ids: list[str]) -> None:
    twice = sorted(fact_id for fact_id, times in Counter(ids).items() if times > 1)
    if twice:
        raise ValueError(f"change_set names a fact more than once: {', '.join(twice)}")
