"""The last copies of documents that a storage has seen."""

from __future__ import annotations

import marshal
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from .base import Scope
from .checks import Document

_MOST_COPIES = 1024
_MOST_SHARED = 256


class Copy(NamedTuple):
    """One version of a document, packed."""

    version: Hashable
    packed: bytes

    def unpacked(self) -> Document:
        document: Document = marshal.loads(self.packed)  # noqa: S302  # packed by `LastCopies.put` in this process
        return document


class LastCopies:
    """The last copy by scope, the longest unused ones given up. Thread-safe.

    Kept packed: a document holds JSON values only, and unpacking one is several times cheaper than `deepcopy`. A copy
    goes with its version, as a slow reader may put an older one at any time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: OrderedDict[Scope, Copy] = OrderedDict()
        self._shared: dict[Scope, tuple[Copy, Document]] = {}

    def get(self, scope: Scope) -> Copy | None:
        with self._lock:
            copy = self._copies.get(scope)
            if copy is not None:
                self._copies.move_to_end(scope)
            return copy

    def shared(self, scope: Scope, copy: Copy) -> Document:
        """The copy unpacked, for all who only read: the same object as long as it is the same copy."""
        kept = self._shared.get(scope)
        if kept is None or kept[0] is not copy:
            kept = copy, copy.unpacked()
            self._share(scope, kept)
        return kept[1]

    def put(self, scope: Scope, version: Hashable, document: Document) -> None:
        """A document too deep to be packed has no copy."""
        try:
            copy = Copy(version, marshal.dumps(document))
        except ValueError:
            self.drop(scope)
            return
        with self._lock:
            self._copies[scope] = copy
            self._copies.move_to_end(scope)
            if len(self._copies) > _MOST_COPIES:
                self._copies.popitem(last=False)

    def drop(self, scope: Scope) -> None:
        with self._lock:
            self._copies.pop(scope, None)
            self._shared.pop(scope, None)

    def _share(self, scope: Scope, kept: tuple[Copy, Document]) -> None:
        with self._lock:
            self._shared.pop(scope, None)
            self._shared[scope] = kept
            if len(self._shared) > _MOST_SHARED:
                del self._shared[next(iter(self._shared))]
