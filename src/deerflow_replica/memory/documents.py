"""What our memory storages share: checks, private copies, stamps, revisions, merges and the last copy seen."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any, NamedTuple

from ..errors import MemoryCorruptError, StoreUnavailableError, VersionConflictError
from .base import (
    NOTHING,
    Document,
    MemoryStorage,
    Scope,
    checked_copy,
    create_empty_memory,
    is_revision,
    now,
    scope_of,
)
from .changes import apply_to, parse_changes
from .copies import LastCopies
from .merge import merge_memory

logger = logging.getLogger(__name__)

_MOST_TRIES = 100


class Stored(NamedTuple):
    """A document as it is stored, and what tells this version of it from any other."""

    document: Document
    version: Hashable


class Unread(Enum):
    """Why a backend read nothing."""

    MISSING = "there is no such document"
    KNOWN = "it is the version that the caller has"


class DocumentStorage(MemoryStorage):
    """The contract of `MemoryStorage` over a backend that reads, and replaces if unchanged, one document per scope.

    `history` earlier revisions are kept for merges; `max_facts` bounds what a merge leaves.
    """

    def __init__(self, *, history: int = 20, max_facts: int | None = None) -> None:
        if history < 0 or (max_facts is not None and max_facts < 0):
            raise ValueError("history and max_facts must not be negative")
        self._history = history
        self._max_facts = max_facts
        self._copies = LastCopies()
        self._is_away = False
        self._is_closed = False

    @abstractmethod
    def _read(self, scope: Scope, known: Hashable | None) -> Stored | Unread:
        """The stored document, unless it is missing or still the `known` version."""

    def _glance(self, scope: Scope, known: Hashable | None) -> Unread | None:
        """What `_read` would say, if that can be told without waiting: never where there is a server to ask."""
        return None

    @abstractmethod
    def _read_revision(self, scope: Scope, revision: int) -> Document | None:
        """An earlier revision, or None if it is not kept (any more)."""

    @abstractmethod
    def _commit(self, scope: Scope, document: Document, expected: int) -> Stored | None:
        """Store the document if the present one is at revision `expected` (0: or missing), and keep that one."""

    @abstractmethod
    def _agents_of(self, user_id: str | None) -> list[str]:
        """The agents of whom the user has a document."""

    def _exclusive(self, scope: Scope) -> AbstractContextManager[object]:
        """Keep others from the scope, where the backend can, so that a merge is done once."""
        return nullcontext()

    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> Document:
        scope = self._open_scope(agent_name, user_id)
        try:
            document = self._current(scope)
        except MemoryCorruptError:
            raise
        except StoreUnavailableError as error:
            return self._last_seen(scope, error)
        self._is_away = False
        return document

    def peek(self, agent_name: str | None = None, *, user_id: str | None = None) -> Mapping[str, Any] | None:
        scope = self._open_scope(agent_name, user_id)
        last = self._copies.get(scope)
        found = self._glance(scope, last.version if last else None)
        if found is None:
            return None
        self._is_away = False
        if last is not None and found is Unread.KNOWN:
            return last.unpacked()
        if last is not None:
            self._copies.drop(scope)
        return NOTHING

    def reload(self, agent_name: str | None = None, *, user_id: str | None = None) -> Document:
        return self._fresh(self._open_scope(agent_name, user_id))

    def save(
        self,
        memory_data: Document,
        agent_name: str | None = None,
        *,
        user_id: str | None = None,
        expected_revision: int | None = None,
    ) -> bool:
        scope = self._open_scope(agent_name, user_id)
        _check_expected(expected_revision)
        document = checked_copy(memory_data)
        try:
            self._update(scope, lambda current: self._successor(scope, current, document, expected_revision))
        except StoreUnavailableError as error:
            logger.error("memory of %s was not saved: %s", scope, error)  # noqa: TRY400  # expected when away; no traceback
            return False
        return True

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
        own and there are no summaries. `ValueError` for a wrong change set, `StoreUnavailableError` when away.
        """
        scope = self._open_scope(agent_name, user_id)
        _check_expected(expected_manifest_revision)
        changes = parse_changes(change_set)
        expected = None if allow_manifest_rebase and changes.is_point_change else expected_manifest_revision
        upserted: list[dict[str, Any]] = []
        deleted: list[str] = []

        def change(current: Document) -> Document:
            _require(scope, current, expected)
            document, upserted[:], deleted[:] = apply_to(current, changes)
            return current if document == current else document

        stored = self._update(scope, change)
        return {
            "complete": False,
            "version": stored.get("version"),
            "revision": stored["revision"],
            "lastUpdated": stored["lastUpdated"],
            "upsertedFacts": upserted,
            "deletedFactIds": deleted,
        }

    def clear_all(self, *, user_id: str | None = None) -> Document:
        """Empty the user's document and those of all the user's agents; the user's empty one.

        Earlier revisions stay for merges, so what others add meanwhile is kept and what they merely had is not.
        `StoreUnavailableError` when the storage is away.
        """
        scope = self._open_scope(None, user_id)
        for agent in self._agents_of(user_id):
            self._update(Scope(agent, user_id), lambda _: create_empty_memory())
        return self._update(scope, lambda _: create_empty_memory())

    def close(self) -> None:
        self._is_closed = True

    def _open_scope(self, agent_name: str | None, user_id: str | None) -> Scope:
        scope = scope_of(agent_name, user_id)
        if self._is_closed:
            raise StoreUnavailableError("the memory storage is closed")
        return scope

    def _current(self, scope: Scope) -> Document:
        """The stored document, from the last copy if it is still that."""
        last = self._copies.get(scope)
        read = self._read(scope, last.version if last else None)
        return last.unpacked() if last and read is Unread.KNOWN else self._seen(scope, read)

    def _fresh(self, scope: Scope) -> Document:
        return self._seen(scope, self._read(scope, None))

    def _seen(self, scope: Scope, read: Stored | Unread) -> Document:
        if isinstance(read, Unread):
            self._copies.drop(scope)
            return create_empty_memory()
        self._copies.put(scope, read.version, read.document)
        return read.document

    def _last_seen(self, scope: Scope, error: StoreUnavailableError) -> Document:
        last = self._copies.get(scope)
        if last is None:
            raise error
        if not self._is_away:
            self._is_away = True
            logger.warning("memory is read from the last copies seen: %s", error)
        return last.unpacked()

    def _update(self, scope: Scope, change: Callable[[Document], Document]) -> Document:
        """Store what `change` makes of the current document, computed anew whenever another one came between."""
        for _ in range(_MOST_TRIES):
            with self._exclusive(scope), _depth_errors(scope):
                current = self._current(scope)
                changed = change(current)
                if changed is current:
                    return current
                document = {**changed, "lastUpdated": now(), "revision": current["revision"] + 1}
                stored = self._commit(scope, document, current["revision"])
            if stored is not None:
                return self._seen(scope, stored)
        raise StoreUnavailableError(f"memory of {scope} changes too often to be saved")

    def _successor(self, scope: Scope, current: Document, document: Document, expected: int | None) -> Document:
        _require(scope, current, expected)
        revision = document.get("revision")
        if expected is not None or revision is None or revision == current["revision"]:
            return document
        base = self._read_revision(scope, revision) if revision < current["revision"] else None
        return merge_memory(base, current, document, max_facts=self._max_facts)


@contextmanager
def _depth_errors(scope: Scope) -> Iterator[None]:
    """What is stored can be read at depths at which it can be neither merged nor written."""
    try:
        yield
    except RecursionError as error:
        raise MemoryCorruptError(f"memory of {scope} is nested too deeply to be changed") from error


def _check_expected(revision: int | None) -> None:
    if revision is not None and not is_revision(revision):
        raise ValueError(f"an expected revision must be an integer from 0 up, not {revision!r}")


def _require(scope: Scope, current: Document, expected: int | None) -> None:
    if expected is not None and expected != current["revision"]:
        raise VersionConflictError(
            f"memory of {scope} is at revision {current['revision']}, not {expected}",
            current=current["revision"],
            kind="manifest",
        )
