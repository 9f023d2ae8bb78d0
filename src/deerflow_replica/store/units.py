"""What callers ask of a store at once, what may go to its backend together, and the answers shared out again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from ..errors import StoreUnavailableError
from .backend import Backend, by_place
from .lanes import Lane
from .values import Get, Place, Read, Search, Write


class Call:
    """The operations of one caller. It is done when `answer` is. Cancelled before it begins, it is not done."""

    __slots__ = ("alone", "answer", "is_ready", "lane", "live", "reads", "reads_at", "writes", "writes_at")

    def __init__(
        self,
        answer: asyncio.Future[Any],
        *,
        reads: Sequence[Read] = (),
        writes: Sequence[Write] = (),
        live: bool = False,
        alone: Callable[[Backend], Awaitable[Any]] | None = None,
        is_ready: bool = True,
    ) -> None:
        """`alone`: what to run instead of `reads` and `writes`, in a unit of its own; without `writes`, a barrier.

        `is_ready`: a call that is not yet holds its place among the others until it is.
        """
        self.answer = answer
        self.reads = reads
        self.writes = writes
        self.live = live
        self.alone = alone
        self.is_ready = is_ready
        self.reads_at = [read.place for read in reads if isinstance(read, Get)]
        self.writes_at = [write.place for write in writes]
        self.lane = self._lane()

    @property
    def is_barrier(self) -> bool:
        """Everything made before it is finished before it begins, and nothing made after it begins before its end."""
        return self.alone is not None and not self.writes

    def _lane(self) -> Lane:
        if self.writes or self.alone is not None:
            return Lane.WRITE
        return Lane.GET if len(self.reads_at) == len(self.reads) else Lane.SCAN


class Claims:
    """The items that some calls concern."""

    def __init__(self) -> None:
        self._read: set[Place] = set()
        self._written: set[Place] = set()

    def add(self, call: Call) -> None:
        self._read.update(call.reads_at)
        self._written.update(call.writes_at)

    def concern(self, call: Call) -> bool:
        """Whether the call must wait: it reads what they write, or writes what they read or write."""
        if self._written and not (self._written.isdisjoint(call.reads_at) and self._written.isdisjoint(call.writes_at)):
            return True
        return bool(self._read and call.writes_at) and not self._read.isdisjoint(call.writes_at)


class Unit:
    """Calls that go to the backend together: reads before writes, and one write for each item."""

    def __init__(self, first: Call, most_calls: int) -> None:
        self.lane = first.lane
        self._most_calls = most_calls
        self.calls = [first]
        self.began = 0.0
        self.is_barrier = first.is_barrier
        self.claims = Claims()
        self.claims.add(first)
        self._deletes = {write.place: write.document is None for write in first.writes}

    @property
    def is_awaited(self) -> bool:
        """Whether any caller still waits."""
        return not all(call.answer.done() for call in self.calls)

    def has_room_for(self, call: Call) -> bool:
        first = self.calls[0]
        if call.alone is not None or first.alone is not None or call.live != first.live:
            return False
        if len(self.calls) >= self._most_calls:
            return False
        if self._deletes and not self._deletes.keys().isdisjoint(call.reads_at):
            return False
        # Of several puts of one item the last is enough, but a put after a delete makes the item anew.
        return self._deletes.keys().isdisjoint(call.writes_at) or not any(map(self._differs, call.writes))

    def add(self, call: Call) -> None:
        self.calls.append(call)
        self.claims.add(call)
        for write in call.writes:
            self._deletes[write.place] = write.document is None

    def _differs(self, write: Write) -> bool:
        is_delete = write.document is None
        return self._deletes.get(write.place, is_delete) != is_delete


def operations(calls: list[Call]) -> tuple[Sequence[Read], list[Write]]:
    if len(calls) == 1:
        return calls[0].reads, by_place(calls[0].writes)
    reads = [read for call in calls for read in call.reads]
    return reads, by_place(write for call in calls for write in call.writes)


def shared_out(calls: list[Call], answers: Iterable[Any]) -> list[list[Any]]:
    if len(calls) == 1:
        return [list(answers)]
    each = iter(answers)
    return [list(islice(each, len(call.reads))) for call in calls]


def settle(calls: list[Call], answers: Iterable[Any]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if not call.answer.done():
            call.answer.set_result(answer)


def restarted(reads: Iterable[Read], answers: Iterable[Any]) -> set[Place]:
    """Where the items are that were found, and whose time to live that restarts."""
    used: set[Place] = set()
    for read, answer in zip(reads, answers, strict=False):
        if isinstance(read, Get):
            if answer is not None and answer.has_ttl and read.refresh:
                used.add(read.place)
        elif isinstance(read, Search) and read.refresh:
            used.update(row.place for row in answer if row.has_ttl)
    return used


def fail(calls: Iterable[Call], error: Exception) -> None:
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(_another(error))


def _another(error: Exception) -> Exception:
    """Each caller gets an object of its own: a traceback grows with every one that raises it."""
    if not isinstance(error, StoreUnavailableError):
        return error
    other = type(error)(*error.args)
    other.__cause__ = error.__cause__
    return other
