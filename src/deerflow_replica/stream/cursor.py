"""Where a reader stands in a stream: the resume rules, decided without any I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .base import InvalidCursor, ResumeGap, StreamGap

_ID = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)
_LARGEST = 2**64 - 1


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The id of one entry of one stream."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a subscriber asked for: nothing, the start, something unreadable, or the place after one entry."""

    text: str | None
    after: Position | Literal["nothing", "start", "invalid"]


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream at one moment: events `floor..last_event` are retained, and END, if it came, is at `tail`."""

    epoch: int
    floor: int
    tail: int
    ended: bool

    @property
    def last_event(self) -> int:
        return self.tail - 1 if self.ended else self.tail

    def id_of(self, seq: int) -> str:
        return f"{self.epoch}-{seq}"

    def gap(self, requested: str | None) -> StreamGap:
        if self.last_event < self.floor:
            return StreamGap(requested, None, None)
        return StreamGap(requested, self.id_of(self.floor), self.id_of(self.last_event))


def parse_cursor(text: str | None) -> Cursor:
    """Read a `last_event_id`; anything that is not canonical ASCII `digits-digits` within 64 bits is invalid."""
    if text is None:
        return Cursor(None, "nothing")
    if text in ("0", "0-0"):
        return Cursor(text, "start")
    found = _ID.fullmatch(text)
    if found is None:
        return Cursor(text, "invalid")
    epoch, seq = int(found[1]), int(found[2])
    return Cursor(text, Position(epoch, seq) if max(epoch, seq) <= _LARGEST else "invalid")


def place(
    cursor: Cursor, state: StreamState | None, *, invalid_cursor: InvalidCursor, resume_gap: ResumeGap
) -> int | StreamGap | None:
    """The seq a subscriber reads next, a gap, or None: wait for the stream, then read from seq 0."""
    after = cursor.after
    if state is None:
        return StreamGap(cursor.text, None, None) if isinstance(after, Position) else None
    if isinstance(after, Position):
        return _resume(cursor.text, after, state, strict=resume_gap == "strict")
    if after == "start":
        return 0 if state.floor == 0 else state.gap(cursor.text)
    if after == "invalid" and invalid_cursor == "tail" and not state.ended:
        return state.tail + 1
    return state.floor


def _resume(text: str | None, after: Position, state: StreamState, *, strict: bool) -> int | StreamGap:
    if after.epoch != state.epoch or after.seq > state.tail:
        return state.gap(text)
    if after.seq + (0 if strict else 1) < state.floor:
        return state.gap(text)
    at_end = state.ended and after.seq == state.tail
    return state.tail if at_end else after.seq + 1
