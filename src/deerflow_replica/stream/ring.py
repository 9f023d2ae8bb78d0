"""The entries of one stream that a process holds: contiguous, oldest dropped first."""

from __future__ import annotations

from collections.abc import Iterable

from .base import StreamEvent
from .cursor import Position, StreamState

_COMPACT_AT = 256


class Entry:
    """One stored entry: an event, or END, whose `event` is the reason. Decoded at most once, when somebody reads it."""

    __slots__ = ("_event", "epoch", "event", "is_end", "seq", "stored")

    def __init__(self, epoch: int, seq: int, event: str, stored: bytes, *, is_end: bool = False) -> None:
        self.epoch = epoch
        self.seq = seq
        self.event = event
        self.stored = stored
        self.is_end = is_end
        self._event: StreamEvent | None = None

    def is_same(self, other: Entry) -> bool:
        return (self.event, self.stored, self.is_end) == (other.event, other.stored, other.is_end)

    def as_event(self) -> StreamEvent:
        if self._event is None:
            self._event = StreamEvent.from_stored(f"{self.epoch}-{self.seq}", self.event, self.stored)
        return self._event


class Ring:
    """Entries `low..tail` of the stream `epoch`. `floor` is the first event that a newcomer may have.

    `gone`: the stream was deleted, nothing will be appended. `owner`: the bridge that published last, if it is known.
    `generation`: of the connections by which this was last compared with the server.
    """

    __slots__ = (
        "_entries",
        "_first",
        "end_reason",
        "epoch",
        "floor",
        "generation",
        "gone",
        "low",
        "owner",
        "stored_bytes",
        "tail",
    )

    def __init__(self, epoch: int, low: int = 0) -> None:
        self.epoch = epoch
        self.low = low
        self.floor = low
        self.tail = low - 1
        self.stored_bytes = 0
        self.end_reason: str | None = None
        self.gone = False
        self.owner = ""
        self.generation = 0
        self._entries: list[Entry | None] = []
        self._first = low

    @property
    def ended(self) -> bool:
        return self.end_reason is not None

    @property
    def last_event(self) -> int:
        return self.tail - 1 if self.ended else self.tail

    @property
    def position(self) -> Position:
        """The id after which the stream goes on."""
        return Position(self.epoch, self.tail) if self.tail >= 0 else Position(0, 0)

    def state(self) -> StreamState:
        return StreamState(self.epoch, self.floor, self.tail, self.ended)

    def get(self, seq: int) -> Entry | None:
        """The entry, or None if it is no longer, or not yet, held here."""
        return self._entries[seq - self._first] if self.low <= seq <= self.tail else None

    def contradicts(self, entries: Iterable[Entry]) -> bool:
        """Whether one of these is held here with other contents: a server that lost it gave its id again."""
        for entry in entries:
            if entry.seq > self.tail:
                return False
            held = self.get(entry.seq)
            if held is not None and not held.is_same(entry):
                return True
        return False

    def append(self, event: str, stored: bytes) -> None:
        self.add(Entry(self.epoch, self.tail + 1, event, stored))

    def append_end(self, reason: str) -> None:
        self.add(Entry(self.epoch, self.tail + 1, reason, b"", is_end=True))

    def drop_below(self, low: int) -> None:
        while self.low < low:
            self._drop_first()
        if self.low - self._first >= _COMPACT_AT:
            del self._entries[: self.low - self._first]
            self._first = self.low

    def fit(self, max_bytes: int) -> None:
        """Drop the oldest until the data fit; the newest event always stays."""
        low = self.low
        surplus = self.stored_bytes - max_bytes
        while surplus > 0 and low < self.last_event:
            entry = self.get(low)
            surplus -= len(entry.stored) if entry else 0
            low += 1
        self.drop_below(low)

    def restart(self, low: int) -> None:
        """What came before `low` can no longer be had from anywhere: hold nothing, and go on from there."""
        self._entries.clear()
        self.stored_bytes = 0
        self.low = self._first = low
        self.tail = low - 1

    def add(self, entry: Entry) -> None:
        """The entry that follows `tail`."""
        self._entries.append(entry)
        self.tail = entry.seq
        if entry.is_end:
            self.end_reason = entry.event
        self.stored_bytes += len(entry.stored)

    def _drop_first(self) -> None:
        index = self.low - self._first
        entry = self._entries[index]
        if entry is not None:
            self.stored_bytes -= len(entry.stored)
        self._entries[index] = None
        self.low += 1
