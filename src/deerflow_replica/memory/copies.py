"""The last copies of documents that a storage has seen."""

from __future__ import annotations

import marshal
import threading
from collections import OrderedDict
from collections.abc import Hashable

from .base import Document, Scope

_MOST_COPIES = 1024


class LastCopies:
    """Private copies by scope, the longest unused ones given up. Thread-safe.

    Kept packed: a document holds JSON values only, and unpacking one is several times cheaper than `deepcopy`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: OrderedDict[Scope, tuple[Hashable, bytes]] = OrderedDict()

    def version(self, scope: Scope) -> Hashable | None:
        entry = self._copies.get(scope)
        return entry[0] if entry else None

    def get(self, scope: Scope) -> Document | None:
        with self._lock:
            entry = self._copies.get(scope)
            if entry is None:
                return None
            self._copies.move_to_end(scope)
        document: Document = marshal.loads(entry[1])  # noqa: S302  # packed by this very object
        return document

    def put(self, scope: Scope, version: Hashable, document: Document) -> None:
        entry = version, marshal.dumps(document)
        with self._lock:
            self._copies[scope] = entry
            self._copies.move_to_end(scope)
            if len(self._copies) > _MOST_COPIES:
                self._copies.popitem(last=False)

    def drop(self, scope: Scope) -> None:
        with self._lock:
            self._copies.pop(scope, None)
