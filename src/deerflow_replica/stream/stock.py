"""Streams that a stock DeerFlow bridge began: `XADD key *`, so ids jump and only comparing them tells anything.

A reader has a place, the id up to which it was given entries, and is given what follows it. Nothing is shared between
the readers but what they ask for at the same moment from the same place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from .base import InvalidCursor, StreamEvent, StreamGap
from .cursor import Cursor, Position
from .hub import Subscriber
from .payload import encode_payload
from .ring import Entry, Ring

START = Position(0, 0)
_LARGEST_SEQ = 2**64 - 1
STOCK_END = b"__end__"


class StockPage(NamedTuple):
    """Such a stream at one moment, and some of its entries. `complete`: nothing was trimmed from it."""

    first: Position
    last: Position
    last_event: str
    ended: bool
    reason: str
    complete: bool
    owner: str
    entries: list[StockEntry]

    def gap(self, requested: str | None) -> StreamGap:
        if not self.last_event:
            return StreamGap(requested, None, None)
        return StreamGap(requested, str(self.first), self.last_event)


class StockEntry(Entry):
    """An entry whose number says up to which version of the stream a reader is when it has read it."""

    __slots__ = ("id",)

    def __init__(self, entry_id: Position, event: str, stored: bytes, *, is_end: bool) -> None:
        super().__init__(0, -1, event, stored, is_end=is_end)
        self.id = entry_id

    def as_event(self) -> StreamEvent:
        if self._event is None:
            self._event = StreamEvent.from_stored(str(self.id), self.event, self.stored)
        return self._event


class StockRing(Ring):
    """Holds no entries: `tail` counts how often the stream was seen to have changed, and `latest` is its last id."""

    def __init__(self) -> None:
        super().__init__(epoch=0)
        self.latest = START
        self.places: WeakKeyDictionary[Subscriber, Position] = WeakKeyDictionary()

    @property
    def position(self) -> Position:
        return self.latest

    def get(self, seq: int) -> Entry | None:
        return None

    def advance(self, latest: Position) -> bool:
        if latest == self.latest:
            return False
        self.latest = latest
        self.tail += 1
        return True

    def put(self, reader: Subscriber, place: Position | StreamGap) -> None:
        reader.read(self, 0)
        if isinstance(place, StreamGap):
            reader.conclude(place)
        else:
            self.places[reader] = place

    def refill(self, readers: list[Subscriber], page: StockPage) -> None:
        """Give readers that are at the same place what follows it, or the gap."""
        if self.advance(page.last):
            readers[0].topic.wake()  # others were at the end, and are no more
        for entry in page.entries:
            entry.seq = self.tail if entry.id == self.latest else self.tail - 1
        for reader in readers:
            if START < self.places[reader] < page.first:
                reader.conclude(page.gap(reader.last_id))
                continue
            if not reader.hand(page.entries):
                continue
            if page.entries:
                self.places[reader] = page.entries[-1].id
            else:
                reader.next_seq = self.tail + 1


def place_in_stock(cursor: Cursor, page: StockPage, *, invalid_cursor: InvalidCursor) -> Position | StreamGap:
    """After which id a subscriber reads on. Ids jump: it is a gap if and only if the cursor is before the first."""
    after = cursor.after
    if isinstance(after, Position):
        if not page.first <= after <= page.last:
            return page.gap(cursor.text)
        return before(after) if page.ended and after == page.last else after
    if after == "start" and not page.complete:
        return page.gap(cursor.text)
    if after == "invalid" and invalid_cursor == "tail" and not page.ended:
        return page.last
    return START


def before(place: Position) -> Position:
    return Position(place.epoch, place.seq - 1) if place.seq else Position(place.epoch - 1, _LARGEST_SEQ)


def parse_stock(reply: Sequence[Any]) -> StockPage:
    """The reply of `read.lua` for such a stream."""
    first, last, last_event, ended, reason, complete, owner = (bytes(value) for value in reply[1:8])
    return StockPage(
        parse_id(first),
        parse_id(last),
        last_event.decode(),
        ended == b"1",
        reason.decode(),
        complete == b"1",
        owner.decode(),
        [_entry(*entry) for entry in reply[8:]],
    )


def parse_id(entry_id: bytes) -> Position:
    epoch, _, seq = entry_id.partition(b"-")
    return Position(int(epoch), int(seq))


def _entry(entry_id: bytes, fields: Sequence[bytes]) -> StockEntry:
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    name = named.get(b"event", b"")
    if named.get(b"kind") == b"end" or name == STOCK_END:
        return StockEntry(parse_id(entry_id), named.get(b"reason", b"done").decode(), b"", is_end=True)
    return StockEntry(parse_id(entry_id), name.decode(), mended(named.get(b"data", b"null")), is_end=False)


def mended(data: bytes) -> bytes:
    """One line of JSON, by the rules of `encode_payload`: what Python's own writer makes of NaN is not JSON."""
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return _rewritten(data)
    return data if b"\n" not in data else _rewritten(data)


def _rewritten(data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    try:
        return encode_payload(json.loads(text), run_id="", event="")
    except (ValueError, TypeError, RecursionError):
        return encode_payload(text, run_id="", event="")
