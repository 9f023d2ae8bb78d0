"""A storage of one's own, as `docs/memory.md` describes it: a dict that the replicas of one process share."""

from __future__ import annotations

import copy
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from deerflow_replica.memory.base import Scope
from deerflow_replica.memory.documents import DocumentStorage, Stored, Unread
from deerflow_replica.testing.memory import Build, MemoryStorageContract


class DictMemoryStorage(DocumentStorage):
    """`_exclusive` makes reading, merging and committing one step; a database would compare versions in `_commit`."""

    def __init__(self, revisions: dict[Scope, dict[int, Any]], lock: threading.Lock, **options: Any) -> None:
        super().__init__(**options)
        self._revisions = revisions
        self._lock = lock

    def _read(self, place: Scope, known: Hashable | None) -> Stored | Unread:
        kept = self._revisions.get(place)
        if not kept:
            return Unread.MISSING
        last = max(kept)
        return Unread.KNOWN if last == known else Stored(copy.deepcopy(kept[last]), last)

    def _read_revision(self, place: Scope, revision: int) -> Any:
        return copy.deepcopy(self._revisions.get(place, {}).get(revision))

    def _commit(self, place: Scope, document: Any, present: Stored) -> Stored | None:
        revision = document["revision"]
        oldest = revision - self._history
        kept = {number: one for number, one in self._revisions.get(place, {}).items() if number >= oldest}
        self._revisions[place] = {**kept, revision: copy.deepcopy(document)}
        return Stored(document, revision)

    def _agents_of(self, user_id: str | None) -> list[str]:
        return sorted(place.agent_name for place in self._revisions if place.user_id == user_id and place.agent_name)

    @contextmanager
    def _exclusive(self, place: Scope) -> Iterator[None]:
        with self._lock:
            yield


class TestDictMemoryStorage(MemoryStorageContract):
    @pytest.fixture
    def build(self) -> Build:
        return partial(DictMemoryStorage, {}, threading.Lock())
