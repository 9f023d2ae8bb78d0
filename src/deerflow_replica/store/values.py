"""What a store returns, and the checked operations that a backend gets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from langgraph.store.base import Item

from .conditions import AllOf

Vector: TypeAlias = tuple[str, tuple[float, ...]]
"""The path of the text in the value, and the text's embedding."""

OnConflict: TypeAlias = Literal["skip", "replace", "newer"]


class VersionedItem(Item):
    """An `Item` and its `version`: a positive int that grows with every write of the key and is never used again."""

    __slots__ = ("version",)

    def __init__(
        self,
        *,
        value: dict[str, Any],
        key: str,
        namespace: tuple[str, ...],
        created_at: datetime,
        updated_at: datetime,
        version: int,
    ) -> None:
        super().__init__(value=value, key=key, namespace=namespace, created_at=created_at, updated_at=updated_at)
        self.version = version

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and isinstance(other, VersionedItem) and self.version == other.version

    __hash__ = Item.__hash__

    def dict(self) -> dict[str, Any]:
        return {**super().dict(), "version": self.version}


class Place(NamedTuple):
    """Where an item is: the labels of its namespace joined by dots, which no label holds, and its key."""

    namespace: str
    key: str


class Row(NamedTuple):
    """An item as a backend returns it. `document` is JSON; the stamps are aware, in UTC."""

    namespace: str
    key: str
    document: bytes | str
    version: int
    created_at: datetime
    updated_at: datetime
    has_ttl: bool
    score: float | None = None

    @property
    def place(self) -> Place:
        return Place(self.namespace, self.key)


class Get(NamedTuple):
    """Answer: a `Row`, or None."""

    place: Place
    refresh: bool = False


class Search(NamedTuple):
    """Answer: a list of `Row`s in the search's order, no more than `limit`.

    `prefix` is joined labels, empty for the whole store. `query` is what the user asked, `vector` its embedding.
    """

    prefix: str
    condition: AllOf
    limit: int
    offset: int
    query: str | None = None
    vector: tuple[float, ...] | None = None
    refresh: bool = False


class NamespacePattern(NamedTuple):
    """Labels, or None for any one label, that a namespace begins or ends with; not counting its first `after`."""

    at: Literal["prefix", "suffix"]
    labels: tuple[str | None, ...]
    after: int = 0

    def matches(self, namespace: tuple[str, ...]) -> bool:
        if len(namespace) < self.after + len(self.labels):
            return False
        start = self.after if self.at == "prefix" else len(namespace) - len(self.labels)
        return all(one is None or one == namespace[start + place] for place, one in enumerate(self.labels))


class ListNamespaces(NamedTuple):
    """Answer: a list of joined namespaces that hold an item, cut to `max_depth` labels, distinct, sorted as tuples."""

    patterns: tuple[NamespacePattern, ...]
    max_depth: int | None
    limit: int
    offset: int


class Count(NamedTuple):
    """Answer: an int."""

    prefix: str
    condition: AllOf


Read: TypeAlias = Get | Search | ListNamespaces | Count


class Write(NamedTuple):
    """Put `document` (JSON), or delete when it is None.

    `ttl` is in microseconds, None: the item never expires. `keeps_ttl`: an item that is there keeps its own, which
    begins anew, and `ttl` is for a new one. `if_version`: 0 only creates, n only follows version n, None always
    writes. `vectors` and `text` replace what the item had; None leaves nothing.
    """

    place: Place
    document: bytes | None
    ttl: int | None = None
    keeps_ttl: bool = False
    if_version: int | None = None
    vectors: tuple[Vector, ...] = ()
    text: str | None = None


class Written(NamedTuple):
    """A conditional write was done; after a delete, version 0 and no stamps."""

    version: int
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Conflict(NamedTuple):
    """A conditional write found another version; 0: nothing was there."""

    current: int


class Restored(NamedTuple):
    """An item to be stored as it is, stamps and all. `ttl` in microseconds, `expires_at` aware."""

    write: Write
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class TakenOver(NamedTuple):
    """An item of another store. `ttl` in microseconds; the stamps are aware."""

    namespace: tuple[str, ...]
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    ttl: int | None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """How many items an import read, how many of them it wrote, and how many it left as they were."""

    read: int = 0
    written: int = 0
    skipped: int = 0
