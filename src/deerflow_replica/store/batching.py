"""The flush scheduler: concurrent calls in few round trips, several at once, each call with its own outcome.

Calls are collected until the end of the loop's tick, then sent in units: one lane for gets, one for scans (searches,
counts, lists), so that a slow search holds up no get, and one for writes. Calls on one item take effect in the order
in which they were made: a call waits while an earlier one that concerns its item is unfinished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from ..errors import StoreUnavailableError
from .backend import Backend, by_place
from .lanes import Lane, Slots
from .values import Get, Place, Read, Search, Write

_MOST_CALLS = 1000  # in one unit
_MOST_SCANS = 32


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


class Scheduler:
    """Belongs to one event loop, as its backend does."""

    def __init__(self, backend: Backend, open_backend: Callable[[], Awaitable[None]]) -> None:
        """`open_backend` opens it, unless it is open."""
        self._backend = backend
        self._open_backend = open_backend
        self._queue: list[Call] = []
        self._under_way: set[Unit] = set()
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._slots = Slots(backend.slots, self._clock)
        self._has_barrier = False
        self._is_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, call: Call) -> None:
        self._queue.append(call)
        self._slots.use(call.lane)
        self.poke()

    def poke(self) -> None:
        """Look at the queue at the end of this tick."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    async def close(self, timeout_seconds: float) -> None:
        """Let what is under way or queued finish, then cancel the rest: its callers get `StoreUnavailableError`."""
        deadline = self._clock() + timeout_seconds
        while (self._under_way or self._queue) and self._clock() < deadline:
            if self._queue:
                self.poke()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=deadline - self._clock())
            else:
                await asyncio.sleep(0.002)
        left, self._queue = self._queue, []
        for calls in (left, *(unit.calls for unit in self._under_way)):
            _fail(calls, StoreUnavailableError("the store was closed while a call was under way"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _flush(self) -> None:
        self._is_scheduled = False
        units = self._units()
        for unit in units:
            self._under_way.add(unit)
            self._has_barrier = unit.is_barrier
        if units and self._queue:
            self.poke()
        for unit in units:
            unit.began = self._clock()
            if not self._begin(unit):
                self._start(self._run(unit))

    def _begin(self, unit: Unit) -> bool:
        """At once, where the backend can: a task is two more turns of the loop."""
        if unit.calls[0].alone is not None:
            return False
        try:
            reads, writes = _operations(unit.calls)
            done = partial(self._arrived, unit, reads)
            return self._backend.begin(reads, writes, live=unit.calls[0].live, done=done)
        except Exception:  # a task meets it again, and finds out whose it is
            return False

    def _arrived(self, unit: Unit, reads: Sequence[Read], answers: list[Any] | StoreUnavailableError | None) -> None:
        """Nothing more is begun for callers who are gone: the store may be closed."""
        if isinstance(answers, list):
            used = _used(reads, answers)
            if used and _is_awaited(unit):
                self._start(self._touched(unit, used, answers))
                return
            _settle(unit.calls, _shared_out(unit.calls, answers))
        elif answers is None:
            if _is_awaited(unit):
                self._start(self._run(unit))
                return
        else:
            _fail(unit.calls, answers)
        self._end(unit)

    def _units(self) -> list[Unit]:
        """Take from the queue what may begin now, at most one unit for each lane."""
        if self._has_barrier:
            return []
        units: dict[Lane, Unit] = {}
        waiting, left = Claims(), list[Call]()
        queue = [call for call in self._queue if not call.answer.done()]
        for index, call in enumerate(queue):
            if call.is_barrier and (index or self._under_way):
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
        if not call.is_ready:
            return False
        for unit in self._under_way:
            if unit.claims.concern(call):
                return False
        for lane, unit in units.items():
            if lane is not call.lane and unit.claims.concern(call):
                return False
        own = units.get(call.lane)
        if own is not None and own.has_room_for(call):
            own.add(call)
            return True
        if own is not None or not self._slots.has_free(call.lane):
            return False
        units[call.lane] = Unit(call, self._share(call.lane))
        self._slots.begin(call.lane)
        return True

    def _share(self, lane: Lane) -> int:
        """The most calls of the queue that go together."""
        if lane is not Lane.SCAN:
            return _MOST_CALLS
        return min(_MOST_SCANS, self._slots.share(sum(call.lane is lane for call in self._queue)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, unit: Unit) -> None:
        with self._ending(unit):
            if await self._is_open(unit.calls):
                await self._done(unit.calls)

    async def _touched(self, unit: Unit, used: set[Place], answers: list[Any]) -> None:
        """Answer once the items that were read begin their time to live anew."""
        with self._ending(unit):
            try:
                await self._backend.touch(sorted(used))
            except Exception as error:  # whatever it is, it belongs to those who wait
                _fail(unit.calls, error)
            else:
                _settle(unit.calls, _shared_out(unit.calls, answers))

    @contextmanager
    def _ending(self, unit: Unit) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            _fail(unit.calls, StoreUnavailableError("the store was closed while a call was under way"))
            raise
        finally:
            self._end(unit)

    def _end(self, unit: Unit) -> None:
        self._under_way.remove(unit)
        self._slots.end(unit.lane, (self._clock() - unit.began) / max(1, sum(len(call.reads) for call in unit.calls)))
        if unit.is_barrier:
            self._has_barrier = False
        if self._queue:
            self.poke()

    async def _is_open(self, calls: list[Call]) -> bool:
        try:
            await self._open_backend()
        except Exception as error:  # whatever it is, it belongs to those who wait
            _fail(calls, error)
            return False
        return True

    async def _done(self, calls: list[Call]) -> None:
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
            await self._done(calls[:middle])
            await self._done(calls[middle:])
        else:
            _settle(calls, answers)

    async def _answers(self, calls: list[Call]) -> list[Any]:
        if calls[0].alone is not None:
            return [await calls[0].alone(self._backend)]
        reads, writes = _operations(calls)
        answers = await self._backend.run(reads, writes, live=calls[0].live)
        if used := _used(reads, answers):
            await self._backend.touch(sorted(used))
        return _shared_out(calls, answers)


def _is_awaited(unit: Unit) -> bool:
    return not all(call.answer.done() for call in unit.calls)


def _operations(calls: list[Call]) -> tuple[Sequence[Read], list[Write]]:
    if len(calls) == 1:
        return calls[0].reads, by_place(calls[0].writes)
    reads = [read for call in calls for read in call.reads]
    return reads, by_place(write for call in calls for write in call.writes)


def _shared_out(calls: list[Call], answers: Iterable[Any]) -> list[list[Any]]:
    if len(calls) == 1:
        return [list(answers)]
    each = iter(answers)
    return [list(islice(each, len(call.reads))) for call in calls]


def _settle(calls: list[Call], answers: Iterable[Any]) -> None:
    for call, answer in zip(calls, answers, strict=True):
        if not call.answer.done():
            call.answer.set_result(answer)


def _used(reads: Iterable[Read], answers: Iterable[Any]) -> set[Place]:
    """Where the items are that were found, and whose time to live that restarts."""
    used: set[Place] = set()
    for read, answer in zip(reads, answers, strict=False):
        if isinstance(read, Get):
            if answer is not None and answer.has_ttl and read.refresh:
                used.add(read.place)
        elif isinstance(read, Search) and read.refresh:
            used.update(row.place for row in answer if row.has_ttl)
    return used


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
