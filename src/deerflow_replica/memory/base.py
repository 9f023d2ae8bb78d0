"""Memory documents: the storage interface, the empty document, and what may be stored."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

Document = dict[str, Any]

NOTHING: Mapping[str, Any] = MappingProxyType({})

USER_SECTIONS = ("workContext", "personalContext", "topOfMind")
HISTORY_SECTIONS = ("recentMonths", "earlierContext", "longTermBackground")

_AGENT_NAME = re.compile(r"[A-Za-z0-9-]+")


class MemoryStorage(ABC):
    """One memory document per scope: nobody, a user, an agent, or a user's agent. Synchronous and thread-safe.

    `agent_name` matches `[A-Za-z0-9-]+`, `user_id` is any text but the empty one; every method raises `ValueError` for
    anything else, before it does anything.
    """

    @abstractmethod
    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> Document:
        """The document as saved, plus `lastUpdated` and the integer `revision` (0: never saved); a private copy.

        Sees every save that any replica finished before. While the storage is away, the last copy this object has
        seen, with one warning; `StoreUnavailableError` if it has none, `MemoryCorruptError` if what is there cannot be
        read.
        """

    def peek(self, agent_name: str | None = None, *, user_id: str | None = None) -> Mapping[str, Any] | None:
        """`load` for readers on an event loop's thread: None if it cannot be told at once, so ask `load` elsewhere.

        Only to be read. What was never saved may be an empty mapping.
        """
        scope_of(agent_name, user_id)
        return None

    @abstractmethod
    def reload(self, agent_name: str | None = None, *, user_id: str | None = None) -> Document:
        """`load` that trusts no cache and raises `StoreUnavailableError` whenever the storage is away."""

    @abstractmethod
    def save(
        self,
        memory_data: Document,
        agent_name: str | None = None,
        *,
        user_id: str | None = None,
        expected_revision: int | None = None,
    ) -> bool:
        """Store the document with a new `lastUpdated` and the next `revision`; True once it is stored.

        With `expected_revision`, only onto that revision: another one raises `VersionConflictError`. Else a document
        without `revision` replaces what is there, one with the current revision follows it, and any other is merged
        with what was saved since (`merge_memory`). False, and logged, when the storage is away, full or locked.
        `ValueError` for what is no memory document. `memory_data` is not touched.
        """

    def apply_changes(
        self,
        change_set: Mapping[str, Any],
        *,
        user_id: str | None = None,
        agent_name: str | None = None,
        expected_manifest_revision: int | None = None,
        allow_manifest_rebase: bool = False,
    ) -> dict[str, Any]:
        """Change single facts and summaries; a storage that has only whole documents raises `NotImplementedError`."""
        raise NotImplementedError(f"{type(self).__name__} stores whole documents only")

    def clear_all(self, *, user_id: str | None = None) -> Document:
        """Empty the user's document and those of all the user's agents; a storage may raise `NotImplementedError`."""
        raise NotImplementedError(f"{type(self).__name__} clears one document at a time")

    def close(self) -> None:
        """Release what the storage holds. Idempotent."""
        return


class Scope(NamedTuple):
    """Whose memory."""

    agent_name: str | None
    user_id: str | None

    def __str__(self) -> str:
        named = (
            f"agent {self.agent_name!r}" if self.agent_name else "",
            f"user {self.user_id!r}" if self.user_id else "",
        )
        return " of ".join(part for part in named if part) or "everyone"


def scope_of(agent_name: object, user_id: object) -> Scope:
    """The checked scope; `ValueError` for a name that cannot be one."""
    if not (agent_name is None or (isinstance(agent_name, str) and _AGENT_NAME.fullmatch(agent_name))):
        raise ValueError(f"agent_name must consist of letters, digits and '-', not {agent_name!r}")
    if not (user_id is None or (isinstance(user_id, str) and user_id)):
        raise ValueError(f"user_id must be a non-empty string, not {user_id!r}")
    return Scope(agent_name, user_id)


def create_empty_memory() -> Document:
    """The document of a scope that was never saved, at revision 0."""
    return {
        "version": "1.0",
        "lastUpdated": now(),
        "user": _empty_sections(USER_SECTIONS),
        "history": _empty_sections(HISTORY_SECTIONS),
        "facts": [],
        "revision": 0,
    }


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


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


def _empty_sections(names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    return {name: {"summary": "", "updatedAt": ""} for name in names}
