"""The flush scheduler: concurrent calls in few round trips, several at once, each call with its own outcome.

Calls are collected until the end of the loop's tick, then sent in units: one lane for gets, one for scans (searches,
counts, lists), so that a slow search holds up no get, and one for writes. Calls on one item take effect in the order
in which they were made: a call waits while an earlier one that concerns its item is unfinished.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum
from itertools import islice
from typing import Any

from ..errors import StoreUnavailableError
from .backend import Backend, by_place
from .values import Get, Place, Read, Row, Search, Write

_MOST_CALLS = 1000  # in one unit
_MOST_SCANS = 32


class Lane(Enum):
    GET = "get"
    SCAN = "scan"
    WRITE = "write"


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
    """The items that unfinished calls concern."""

    def __init__(self) -> None:
        self._read: Counter[Place] = Counter()
        self._written: Counter[Place] = Counter()

    def add(self, call: Call) -> None:
        self._read.update(call.reads_at)
        self._written.update(call.writes_at)

    def remove(self, calls: Iterable[Call]) -> None:
        for call in calls:
            _subtract(self._read, call.reads_at)
            _subtract(self._written, call.writes_at)

    def concern(self, call: Call) -> bool:
        """Whether the call must wait: it reads what they write, or writes what they read or write."""
        if self._written and any(place in self._written for place in (*call.reads_at, *call.writes_at)):
            return True
        return bool(self._read) and any(place in self._read for place in call.writes_at)


class Unit:
    """Calls that go to the backend together: reads before writes, and one write for each item."""

    def __init__(self, first: Call) -> None:
        self.lane = first.lane
        self.calls = [first]
        self.is_barrier = first.is_barrier
        self.claims = Claims()
        self.claims.add(first)
        self._deletes = {write.place: write.document is None for write in first.writes}

    def has_room_for(self, call: Call) -> bool:
        first = self.calls[0]
        if call.alone is not None or first.alone is not None or call.live != first.live:
            return False
        if len(self.calls) >= (_MOST_SCANS if self.lane is Lane.SCAN else _MOST_CALLS):
            return False
        if any(place in self._deletes for place in call.reads_at):
            return False
        # Of several puts of one item the last is enough, but a put after a delete makes the item anew.
        return all(self._deletes.get(one.place, one.document is None) == (one.document is None) for one in call.writes)

    def add(self, call: Call) -> None:
        self.calls.append(call)
        self.claims.add(call)
        self._deletes.update((write.place, write.document is None) for write in call.writes)


class Scheduler:
    """Belongs to one event loop, as its backend does."""

    def __init__(self, backend: Backend, open_backend: Callable[[], Awaitable[None]]) -> None:
        """`open_backend` opens it, unless it is open."""
        self._backend = backend
        self._open_backend = open_backend
        self._queue: list[Call] = []
        self._under_way = Claims()
        # Scans leave a slot for gets and one for writes, writes leave one for gets, where there are that many.
        slots = backend.slots
        self._free = {Lane.GET: slots, Lane.SCAN: max(1, slots - 2), Lane.WRITE: max(1, slots - 1)}
        self._all_free = slots
        self._has_barrier = False
        self._is_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, call: Call) -> None:
        self._queue.append(call)
        self.poke()

    def poke(self) -> None:
        """Look at the queue at the end of this tick."""
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def close(self, timeout_seconds: float) -> None:
        """Let what is under way or queued finish, then cancel the rest: its callers get `StoreUnavailableError`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while (self._tasks or self._queue) and loop.time() < deadline:
            self.poke()
            await asyncio.sleep(0 if self._tasks else 0.002)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=max(0.0, deadline - loop.time()))
        left, self._queue = self._queue, []
        _fail(left, StoreUnavailableError("the store was closed while a call was under way"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _flush(self) -> None:
        self._is_scheduled = False
        units = self._units()
        for unit in units:
            self._begin(unit)
        if units and self._queue:
            self.poke()

    def _units(self) -> list[Unit]:
        """Take from the queue what may begin now, at most one unit for each lane."""
        if self._has_barrier:
            return []
        units: dict[Lane, Unit] = {}
        waiting, left = Claims(), list[Call]()
        queue = [call for call in self._queue if not call.answer.done()]
        for index, call in enumerate(queue):
            if call.is_barrier and (index or self._tasks):
                left.extend(queue[index:])
                break
            if not waiting.concern(call) and self._takes(call, units):
                if call.is_barrier:
                    left = queue[1:]
                    break
                continue
            waiting.add(call)
            left.append(call)
        self._queue = left
        return list(units.values())

    def _takes(self, call: Call, units: dict[Lane, Unit]) -> bool:
        """Into the unit of its lane, if there is room and nothing under way or in another unit concerns it."""
        if not call.is_ready or self._under_way.concern(call):
            return False
        if any(unit.claims.concern(call) for lane, unit in units.items() if lane is not call.lane):
            return False
        unit = units.get(call.lane)
        if unit is not None and unit.has_room_for(call):
            unit.add(call)
            return True
        if unit is not None or not self._free[call.lane] or self._all_free <= len(units):
            return False
        units[call.lane] = Unit(call)
        return True

    def _begin(self, unit: Unit) -> None:
        for call in unit.calls:
            self._under_way.add(call)
        self._free[unit.lane] -= 1
        self._all_free -= 1
        self._has_barrier = unit.is_barrier
        task = asyncio.get_running_loop().create_task(self._run(unit))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._queue:
            self.poke()

    async def _run(self, unit: Unit) -> None:
        try:
            if await self._is_open(unit.calls):
                await self._settle(unit.calls)
        except asyncio.CancelledError:
            _fail(unit.calls, StoreUnavailableError("the store was closed while a call was under way"))
            raise
        finally:
            self._under_way.remove(unit.calls)
            self._free[unit.lane] += 1
            self._all_free += 1
            if unit.is_barrier:
                self._has_barrier = False

    async def _is_open(self, calls: list[Call]) -> bool:
        try:
            await self._open_backend()
        except Exception as error:  # whatever it is, it belongs to those who wait
            _fail(calls, error)
            return False
        return True

    async def _settle(self, calls: list[Call]) -> None:
        """Run them together; what is refused is halved until only the culprit fails."""
        try:
            answers = await self._answers(calls)
        except StoreUnavailableError as error:
            _fail(calls, error)
        except Exception as error:  # whatever it is, it belongs to the caller whose call it is
            if len(calls) == 1:
                _fail(calls, error)
                return
            middle = len(calls) // 2
            await self._settle(calls[:middle])
            await self._settle(calls[middle:])
        else:
            for call, answer in zip(calls, answers, strict=True):
                if not call.answer.done():
                    call.answer.set_result(answer)

    async def _answers(self, calls: list[Call]) -> list[Any]:
        if calls[0].alone is not None:
            return [await calls[0].alone(self._backend)]
        reads = [read for call in calls for read in call.reads]
        writes = by_place(write for call in calls for write in call.writes)
        answers = await self._backend.run(reads, writes, live=calls[0].live)
        if used := {row.place for read, answer in zip(reads, answers, strict=True) for row in _used(read, answer)}:
            await self._backend.touch(sorted(used))
        each = iter(answers)
        return [list(islice(each, len(call.reads))) for call in calls]


def _used(read: Read, answer: Any) -> Iterable[Row]:
    """The rows that a read found and whose time to live it restarts."""
    if isinstance(read, Get):
        return (answer,) if read.refresh and answer is not None and answer.has_ttl else ()
    return [row for row in answer if row.has_ttl] if isinstance(read, Search) and read.refresh else ()


def _subtract(counter: Counter[Place], places: Iterable[Place]) -> None:
    for place in places:
        counter[place] -= 1
        if not counter[place]:
            del counter[place]


def _fail(calls: Iterable[Call], error: Exception) -> None:
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
