"""What the Lua scripts answer and push, as values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from .cursor import StreamState
from .ring import Entry
from .stock import STOCK_END, StockPage, mended, parse_stock

_END = 1


class Page(NamedTuple):
    """One stream at one moment, and some of its entries, contiguous."""

    epoch: int
    floor: int
    tail: int
    ended: bool
    reason: str
    owner: str
    entries: list[Entry]

    def state(self) -> StreamState:
        return StreamState(self.epoch, self.floor, self.tail, self.ended)


class Push(NamedTuple):
    """`event`: entries from `first` on. `tail`: they were too large to push. `gone`: the stream was deleted."""

    kind: str
    epoch: int
    first: int = 0
    entries: Sequence[Entry] = ()


def parse_page(reply: Sequence[Any]) -> Page | StockPage | None:
    """The reply of `read.lua`; None: there is no stream."""
    if not reply:
        return None
    if reply[0] == b"stock":
        return parse_stock(reply)
    epoch, tail, floor, _, ended, reason, owner = (bytes(value).decode() for value in reply[:7])
    entries = [_entry(entry_id, fields) for entry_id, fields in reply[7:]]
    return Page(int(epoch), int(floor), int(tail), ended == "1", reason, sys.intern(owner), entries)


def parse_push(message: bytes) -> Push:
    """A message of `append.lua` or `cleanup.lua`."""
    head, _, body = message.partition(b"\n")
    kind, epoch, *rest = head.decode().split(" ")
    if kind != "event":
        return Push(kind, int(epoch))
    first, heads = int(rest[0]), orjson.loads(f"[{rest[2]}]")
    entries = []
    at = 0
    for seq, (mark, name_size, data_size) in enumerate(zip(heads[1::4], heads[2::4], heads[3::4], strict=True), first):
        middle = at + int(name_size)
        behind = middle + int(data_size)
        entries.append(_made(int(epoch), seq, body[at:middle], body[middle:behind], is_end=mark == _END))
        at = behind
    if at != len(body):
        raise ValueError("the body has another length")
    return Push(kind, int(epoch), first, entries)


def parse_entries(raw: Sequence[Any]) -> list[Entry]:
    """What an XREAD gives of one stream; none if something in it is not an entry of a bridge."""
    try:
        return [_entry(entry_id, fields) for entry_id, fields in raw]
    except (KeyError, ValueError):
        return []


def _entry(entry_id: bytes, fields: Sequence[bytes]) -> Entry:
    epoch, _, seq = entry_id.partition(b"-")
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    event = named.get(b"event", b"")
    if named.get(b"kind") == b"end" or event == STOCK_END:
        return _made(int(epoch), int(seq), b"", named.get(b"reason", b"done"), is_end=True)
    data = named[b"data"] if b"w" in named else mended(named[b"data"])
    return _made(int(epoch), int(seq), event, data, is_end=False)


def _made(epoch: int, seq: int, name: bytes, data: bytes, *, is_end: bool) -> Entry:
    if is_end:
        return Entry(epoch, seq, data.decode(), b"", is_end=True)
    return Entry(epoch, seq, sys.intern(name.decode()), data)  # thousands share a few names
