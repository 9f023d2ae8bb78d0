"""Memory documents: the storage interface, the empty document, and what may be stored."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

from .changes import ChangeSet, parse_changes
from .checks import Document, check_document, check_expected

NOTHING: Mapping[str, Any] = MappingProxyType({})

USER_SECTIONS = ("workContext", "personalContext", "topOfMind")
HISTORY_SECTIONS = ("recentMonths", "earlierContext", "longTermBackground")

_AGENT_NAME = re.compile(r"[A-Za-z0-9-]+")


class MemoryStorage(ABC):
    """One memory document per scope: nobody, a user, an agent, or a user's agent. Synchronous and thread-safe.

    `agent_name` matches `[A-Za-z0-9-]+`, `user_id` is any text but the empty one; every method raises `ValueError` for
    anything else, before it does anything.
    """

    own_agents: frozenset[str] = frozenset()
    """Names beyond that pattern that a storage accepts for agents."""

    @abstractmethod
    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> Document:
        """The document as saved, plus `lastUpdated` and the integer `revision` (0: never saved); a private copy.

        Sees every save that any replica finished before. While the storage is away, the last copy this object has
        seen, with one warning; `StoreUnavailableError` if it has none, `MemoryCorruptError` if what is there cannot be
        read.
        """

    def peek(self, agent_name: str | None = None, *, user_id: str | None = None) -> Mapping[str, Any] | None:
        """`load` for readers on an event loop's thread: None if it cannot be told at once, so ask `load` elsewhere.

        Only to be read, and never changed once it was told: the same object has the same content. What was never saved
        may be an empty mapping.
        """
        scope_of(agent_name, user_id, self.own_agents)
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
        """Change single facts and summaries in one step; the result is the change as stored, never the whole document.

        `upserts` and `deletes` (facts, ids), `upsertRevisions` and `deleteRevisions` (id to the revision the change
        was derived from; None: the fact must not exist), `summaries` (`user`, `history`). A fact's `revision` starts
        at 1 and grows with its content. `VersionConflictError`, of `kind` "manifest" or "fact", when a revision is
        another; a stale `expected_manifest_revision` passes with `allow_manifest_rebase`, if every fact carries its
        own and there are no summaries. `ValueError` for a wrong change set, `StoreUnavailableError` when away,
        `NotImplementedError` from a storage that has only whole documents.
        """
        scope = scope_of(agent_name, user_id, self.own_agents)
        check_expected(expected_manifest_revision)
        changes = parse_changes(change_set)
        may_rebase = allow_manifest_rebase and changes.is_point_change
        return self._change(scope, changes, None if may_rebase else expected_manifest_revision)

    def _change(self, scope: Scope, changes: ChangeSet, expected: int | None) -> dict[str, Any]:
        """Apply checked changes, derived from revision `expected` unless that is None."""
        raise NotImplementedError(f"{type(self).__name__} stores whole documents only")

    def clear_all(self, *, user_id: str | None = None) -> Document:
        """Empty the user's document and those of all the user's agents; the user's empty one.

        Earlier revisions stay for merges, so what others add meanwhile is kept and what they merely had is not.
        `StoreUnavailableError` when the storage is away; a storage may raise `NotImplementedError`.
        """
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


def scope_of(agent_name: object, user_id: object, own_agents: frozenset[str] = frozenset()) -> Scope:
    """The checked scope; `ValueError` for a name that cannot be one."""
    if not (agent_name is None or _is_agent_name(agent_name, own_agents)):
        raise ValueError(f"agent_name must consist of letters, digits and '-', not {agent_name!r}")
    if not (user_id is None or (isinstance(user_id, str) and user_id)):
        raise ValueError(f"user_id must be a non-empty string, not {user_id!r}")
    return Scope(agent_name, user_id)


def _is_agent_name(name: object, own_agents: frozenset[str]) -> TypeGuard[str]:
    return isinstance(name, str) and (_AGENT_NAME.fullmatch(name) is not None or name in own_agents)


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


def as_stored(document: object) -> Document:
    """A document as it was stored, with the revision and time that one of DeerFlow's may lack; `ValueError` if it is
    none.
    """
    if not isinstance(document, dict):
        raise ValueError("it holds no object")  # noqa: TRY004  # one error for all that is unreadable
    check_document(document)
    return {**document, "revision": document.get("revision", 0), "lastUpdated": document.get("lastUpdated", now())}


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _empty_sections(names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    return {name: {"summary": "", "updatedAt": ""} for name in names}
