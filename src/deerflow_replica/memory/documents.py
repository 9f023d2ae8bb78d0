"""What our memory storages share: checks, private copies, stamps, revisions, merges and the last copy seen."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any, Literal, NamedTuple, get_args

from ..errors import MemoryCorruptError, StoreUnavailableError, VersionConflictError
from .base import NOTHING, MemoryStorage, Scope, create_empty_memory, now, scope_of
from .changes import ChangeSet, apply_to
from .checks import Document, check_expected, checked_copy
from .copies import LastCopies
from .merge import merge_memory
from .views import knows, view_of, with_view, without_facts

logger = logging.getLogger(__name__)

Summaries = Literal["scope", "user"]
Change = Callable[[Document], Document]

_MOST_TRIES = 100


class Stored(NamedTuple):
    """A document as it is stored, and what tells this version of it from any other (None: it is not stored)."""

    document: Document
    version: Hashable


class Unread(Enum):
    """Why a backend read nothing."""

    MISSING = "there is no such document"
    KNOWN = "it is the version that the caller has"


class DocumentStorage(MemoryStorage):
    """The contract of `MemoryStorage` over a backend that reads, and replaces if unchanged, one document per scope.

    `history` earlier revisions are kept for merges; `max_facts` bounds what a merge leaves. With `summaries="scope"`
    each scope has a document of its own. With "user" a user's agents share the user's summaries and revision and have
    only facts of their own: what is saved under an agent changes nothing but its facts, and the user's document
    holds it all.
    """

    commits_by_version = False
    """Whether `_commit` itself finds out that a document is not the present one any more."""

    def __init__(self, *, history: int = 20, summaries: Summaries = "scope", max_facts: int | None = None) -> None:
        if history < 0 or (max_facts is not None and max_facts < 0):
            raise ValueError("history and max_facts must not be negative")
        if summaries not in get_args(Summaries):
            raise ValueError(f"summaries must be 'scope' or 'user', not {summaries!r}")
        self._history = history
        self._summaries = summaries
        self._max_facts = max_facts
        self._copies = LastCopies()
        self._is_away = False
        self._is_closed = False

    @abstractmethod
    def _read(self, place: Scope, known: Hashable | None) -> Stored | Unread:
        """The stored document, unless it is missing or still the `known` version."""

    def _glance(self, place: Scope, known: Hashable | None) -> Unread | None:
        """What `_read` would say, if that can be told without waiting: never where there is a server to ask."""
        return None

    @abstractmethod
    def _read_revision(self, place: Scope, revision: int) -> Document | None:
        """An earlier revision, or None if it is not kept (any more)."""

    @abstractmethod
    def _commit(self, place: Scope, document: Document, present: Stored) -> Stored | None:
        """Store the document instead of the `present` one, and keep that; None if it is not the present one."""

    def _was_not_present(self, place: Scope, revision: int, present: int) -> None:
        """`_commit` was given a document of this revision, and found out that it was not the present one."""

    @abstractmethod
    def _agents_of(self, user_id: str | None) -> list[str]:
        """The agents of whom the user has a document."""

    def _exclusive(self, place: Scope) -> AbstractContextManager[object]:
        """Keep others from the document, where the backend can, so that a merge is done once."""
        return nullcontext()

    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> Document:
        scope = self._open_scope(agent_name, user_id)
        try:
            document = self._view(scope, self._latest(self._place(scope)).document)
        except MemoryCorruptError:
            raise
        except StoreUnavailableError as error:
            return self._last_seen(scope, error)
        self._is_away = False
        return document

    def peek(self, agent_name: str | None = None, *, user_id: str | None = None) -> Mapping[str, Any] | None:
        scope = self._open_scope(agent_name, user_id)
        place = self._place(scope)
        last = self._copies.get(place)
        found = self._glance(place, last.version if last else None)
        if found is None:
            return None
        self._is_away = False
        if last is not None and found is Unread.MISSING:
            self._copies.drop(place)
        document = self._copies.shared(place, last) if last is not None and found is Unread.KNOWN else NOTHING
        return document if place == scope else self._peeked_view(scope, document)

    def _peeked_view(self, scope: Scope, document: Mapping[str, Any]) -> Mapping[str, Any] | None:
        whole = dict(document)
        return view_of(whole, scope.agent_name) if knows(whole, scope.agent_name) else None

    def reload(self, agent_name: str | None = None, *, user_id: str | None = None) -> Document:
        scope = self._open_scope(agent_name, user_id)
        place = self._place(scope)
        return self._view(scope, self._seen(place, self._read(place, None)).document)

    def save(
        self,
        memory_data: Document,
        agent_name: str | None = None,
        *,
        user_id: str | None = None,
        expected_revision: int | None = None,
    ) -> bool:
        scope = self._open_scope(agent_name, user_id)
        check_expected(expected_revision)
        document = checked_copy(memory_data)
        try:
            self._update_view(scope, lambda current: self._successor(scope, current, document, expected_revision))
        except StoreUnavailableError as error:
            logger.error("memory of %s was not saved: %s", scope, error)  # noqa: TRY400  # expected when away; no traceback
            return False
        return True

    def _change(self, scope: Scope, changes: ChangeSet, expected: int | None) -> dict[str, Any]:
        self._require_open()
        upserted: list[dict[str, Any]] = []
        deleted: list[str] = []

        def change(current: Document) -> Document:
            _require(scope, current, expected)
            document, upserted[:], deleted[:] = apply_to(current, changes)
            return current if document == current else document

        stored = self._update_view(scope, change)
        return {
            "complete": False,
            "version": stored.get("version"),
            "revision": stored["revision"],
            "lastUpdated": stored["lastUpdated"],
            "upsertedFacts": upserted,
            "deletedFactIds": deleted,
        }

    def clear_all(self, *, user_id: str | None = None) -> Document:
        scope = self._open_scope(None, user_id)
        agents = self._agents_of(user_id)
        if self._summaries == "user":
            cleared = self._update(scope, lambda _: without_facts(create_empty_memory(), agents))
            return view_of(cleared, None)
        for agent in agents:
            self._update(Scope(agent, user_id), lambda _: create_empty_memory())
        return self._update(scope, lambda _: create_empty_memory())

    def close(self) -> None:
        self._is_closed = True

    def _open_scope(self, agent_name: str | None, user_id: str | None) -> Scope:
        scope = scope_of(agent_name, user_id, self.own_agents)
        self._require_open()
        return scope

    def _require_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailableError("the memory storage is closed")

    def _place(self, scope: Scope) -> Scope:
        """Whose document holds what the scope sees."""
        return scope if self._summaries == "scope" else Scope(None, scope.user_id)

    def _view(self, scope: Scope, document: Document) -> Document:
        """What the scope sees of it. Facts of an agent that has none there are the ones of its former document."""
        if self._summaries == "scope":
            return document
        if knows(document, scope.agent_name):
            return view_of(document, scope.agent_name)
        before = self._read(scope, None)
        return view_of(document, scope.agent_name, before.document.get("facts") if isinstance(before, Stored) else None)

    def _latest(self, place: Scope) -> Stored:
        """The stored document, from the last copy if it is still that."""
        last = self._copies.get(place)
        read = self._read(place, last.version if last else None)
        if last is not None and read is Unread.KNOWN:
            return Stored(last.unpacked(), last.version)
        return self._seen(place, read)

    def _seen(self, place: Scope, read: Stored | Unread) -> Stored:
        if isinstance(read, Unread):
            self._copies.drop(place)
            return Stored(create_empty_memory(), None)
        self._copies.put(place, read.version, read.document)
        return read

    def _last_seen(self, scope: Scope, error: StoreUnavailableError) -> Document:
        last = self._copies.get(self._place(scope))
        if last is None:
            raise error
        document = self._view(scope, last.unpacked())
        if not self._is_away:
            self._is_away = True
            logger.warning("memory is read from the last copies seen: %s", error)
        return document

    def _update_view(self, scope: Scope, change: Change) -> Document:
        def change_whole(whole: Document) -> Document:
            seen = self._view(scope, whole)
            changed = change(seen)
            return whole if changed is seen else with_view(whole, scope.agent_name, changed)

        shares = self._summaries == "user"
        return self._update(self._place(scope), change_whole if shares else change)

    def _update(self, place: Scope, change: Change) -> Document:
        """Store what `change` makes of the current document, computed anew whenever another one came between."""
        for attempt in range(_MOST_TRIES):
            with self._exclusive(place), _depth_errors(place):
                may_presume = self.commits_by_version and not attempt
                stored = self._attempt_on_copy(place, change) if may_presume else None
                if stored is None:
                    stored = self._attempt(place, change, self._latest(place))
            if stored is not None:
                return stored
        raise StoreUnavailableError(f"memory of {place} changes too often to be saved")

    def _attempt_on_copy(self, place: Scope, change: Change) -> Document | None:
        """`_attempt` without a question first: None if the last copy is not the present document, or may not be."""
        last = self._copies.get(place)
        if last is None:
            return None
        presumed = Stored(last.unpacked(), last.version)
        try:
            stored = self._attempt(place, change, presumed)
        except VersionConflictError:
            return None
        if stored is None:
            self._was_not_present(place, presumed.document["revision"], self._latest(place).document["revision"])
        return None if stored is presumed.document else stored

    def _attempt(self, place: Scope, change: Change, present: Stored) -> Document | None:
        current = present.document
        changed = change(current)
        if changed is current:
            return current
        document = {**changed, "lastUpdated": now(), "revision": current["revision"] + 1}
        stored = self._commit(place, document, present)
        return None if stored is None else self._seen(place, stored).document

    def _successor(self, scope: Scope, current: Document, document: Document, expected: int | None) -> Document:
        _require(scope, current, expected)
        revision = document.get("revision")
        if not (expected is not None or revision is None or revision == current["revision"]):
            base = self._read_revision(self._place(scope), revision) if revision < current["revision"] else None
            seen = None if base is None else self._view(scope, base)
            document = merge_memory(seen, current, document, max_facts=self._max_facts)
        if self._place(scope) == scope:
            return document
        return {**current, "facts": document.get("facts", [])}


@contextmanager
def _depth_errors(place: Scope) -> Iterator[None]:
    """What is stored can be read at depths at which it can be neither merged nor written."""
    try:
        yield
    except RecursionError as error:
        raise MemoryCorruptError(f"memory of {place} is nested too deeply to be changed") from error


def _require(scope: Scope, current: Document, expected: int | None) -> None:
    if expected is not None and expected != current["revision"]:
        raise VersionConflictError(
            f"memory of {scope} is at revision {current['revision']}, not {expected}",
            current=current["revision"],
            kind="manifest",
        )
