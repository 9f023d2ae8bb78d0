"""Memory documents in any LangGraph store."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from langgraph.store.base import BaseStore, PutOp

from ..errors import MemoryCorruptError
from .base import Scope, as_stored
from .checks import Document
from .documents import DocumentStorage, Stored, Summaries, Unread
from .items import Found, PlainItems, Value, items_of
from .names import agent_place, place_name

logger = logging.getLogger(__name__)

_NOBODY = "%none"  # no text's name: behind a '%' come two capital hexadecimal digits, or "sha256"
_HISTORY = "history"
_BEYOND_DATABASES = re.compile(r"\\u0000|[0-9]{19}")  # the zero character, integers of more than 64 bits


class StoreMemoryStorage(DocumentStorage):
    """A document for each scope in `namespace` and the user's label, its key the agent's; earlier revisions beside it.

    On a store that replaces by version, as ours do, replicas that save at once lose nothing. On any other that holds
    within one process only, and a warning says so. The store is borrowed: whoever opened it closes it. On a store
    whose sync calls are refused on an event loop's thread, as LangGraph's asynchronous ones do, call from another one.
    """

    def __init__(
        self,
        store: BaseStore,
        *,
        namespace: Sequence[str] = ("deerflow_memory",),
        history: int = 20,
        summaries: Summaries = "scope",
        max_facts: int | None = None,
    ) -> None:
        super().__init__(history=history, summaries=summaries, max_facts=max_facts)
        self._namespace = _checked(namespace)
        self._items = items_of(store)
        self.commits_by_version = self._items.finds_conflicts
        if isinstance(self._items, PlainItems):
            logger.warning(
                "%s does not replace by version: memory is not safe from saves of other replicas", type(store).__name__
            )

    def _read(self, place: Scope, known: Hashable | None) -> Stored | Unread:
        found = self._found(place)
        return Unread.MISSING if found is None else Stored(_unpacked(found.value, place), found.version)

    def _read_revision(self, place: Scope, revision: int) -> Document | None:
        try:
            found = self._found(place, revision)
            return None if found is None else _unpacked(found.value, place)
        except MemoryCorruptError as error:
            logger.warning("an earlier revision is left out of a merge: %s", error)
            return None

    def _found(self, place: Scope, revision: int | None = None) -> Found | None:
        try:
            return self._items.read(*self._address(place, revision))
        except json.JSONDecodeError as error:  # the store's own text of it is damaged
            raise _corrupt(place, error) from error

    def _commit(self, place: Scope, document: Document, present: Stored) -> Stored | None:
        version = self._items.replace(self._put(place, document), present.version, self._to_keep(place, present))
        return None if version is None else Stored(document, version)

    def _was_not_present(self, place: Scope, revision: int, present: int) -> None:
        """It was kept as an earlier revision all the same, and may be too old for that."""
        if revision < present - self._history:
            self._items.write([PutOp(*self._address(place, revision), None)])

    def _agents_of(self, user_id: str | None) -> list[str]:
        namespace, nobody = self._address(Scope(None, user_id))
        return sorted(key for key in self._items.keys(namespace) if key != nobody)

    def _exclusive(self, place: Scope) -> AbstractContextManager[object]:
        return self._items.exclusive(place)

    def _to_keep(self, place: Scope, present: Stored) -> list[PutOp]:
        """The present document becomes an earlier revision, and the oldest of these goes."""
        if present.version is None or not self._history:
            return []
        revision = present.document["revision"]
        ops = [self._put(place, present.document, revision)]
        if revision > self._history:
            ops.append(PutOp(*self._address(place, revision - self._history), None))
        return ops

    def _put(self, place: Scope, document: Document, revision: int | None = None) -> PutOp:
        no_index: Literal[False] = False
        return PutOp(*self._address(place, revision), _packed(document), no_index, None)

    def _address(self, place: Scope, revision: int | None = None) -> tuple[tuple[str, ...], str]:
        user = _NOBODY if place.user_id is None else place_name(place.user_id)
        agent = _NOBODY if place.agent_name is None else agent_place(place.agent_name)
        if revision is None:
            return (*self._namespace, user), agent
        return (*self._namespace, _HISTORY, user), f"{agent}/{revision}"


def _packed(document: Document) -> Value:
    """As it is, for who looks into the store; as text where a database would refuse or change something of it."""
    text = json.dumps(document)
    return {"text": text} if _BEYOND_DATABASES.search(text) else {"document": document}


def _unpacked(value: Value, place: Scope) -> Document:
    """`MemoryCorruptError` for what is no memory document."""
    try:
        return as_stored(json.loads(value["text"]) if "text" in value else value["document"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _corrupt(place, error) from error


def _corrupt(place: Scope, error: Exception) -> MemoryCorruptError:
    return MemoryCorruptError(f"memory of {place} cannot be read from the store: {error!r}")


def _checked(namespace: Any) -> tuple[str, ...]:
    labels = tuple(namespace)
    legal = all(isinstance(label, str) and label and "." not in label for label in labels)
    if isinstance(namespace, str) or not labels or not legal or labels[0] == "langgraph":
        raise ValueError(f"namespace must be labels that LangGraph takes, not {namespace!r}")
    return labels
