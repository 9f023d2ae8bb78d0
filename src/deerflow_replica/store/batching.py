"""The flush scheduler: concurrent calls in few round trips, several at once, each call with its own outcome.

Calls are collected until the end of the loop's tick, then sent in units: one lane for gets, one for scans (searches,
counts, lists), so that a slow search holds up no get, and one for writes. Calls on one item take effect in the order
in which they were made: a call waits while an earlier one that concerns its item is unfinished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..errors import StoreUnavailableError
from .backend import Backend
from .lanes import Lane, Slots
from .units import Call, Claims, Unit, fail, operations, restarted, settle, shared_out
from .values import Place, Read

_MOST_CALLS = 1000  # in one unit
_MOST_SCANS = 32


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
            fail(calls, StoreUnavailableError("the store was closed while a call was under way"))
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
            reads, writes = operations(unit.calls)
            done = partial(self._arrived, unit, reads)
            return self._backend.begin(reads, writes, live=unit.calls[0].live, done=done)
        except Exception:  # a task meets it again, and finds out whose it is
            return False

    def _arrived(self, unit: Unit, reads: Sequence[Read], answers: list[Any] | StoreUnavailableError | None) -> None:
        """Nothing more is begun for callers who are gone: the store may be closed."""
        if isinstance(answers, list):
            used = restarted(reads, answers)
            if used and unit.is_awaited:
                self._start(self._touched(unit, used, answers))
                return
            settle(unit.calls, shared_out(unit.calls, answers))
        elif answers is None:
            if unit.is_awaited:
                self._start(self._run(unit))
                return
        else:
            fail(unit.calls, answers)
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
                fail(unit.calls, error)
            else:
                settle(unit.calls, shared_out(unit.calls, answers))

    @contextmanager
    def _ending(self, unit: Unit) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            fail(unit.calls, StoreUnavailableError("the store was closed while a call was under way"))
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
            fail(calls, error)
            return False
        return True

    async def _done(self, calls: list[Call]) -> None:
        """Run them together; what is refused is halved until only the culprit fails."""
        try:
            answers = await self._answers(calls)
        except StoreUnavailableError as error:
            fail(calls, error)
        except Exception as error:  # whatever it is, it belongs to the caller whose call it is
            if len(calls) == 1:
                fail(calls, error)
                return
            middle = len(calls) // 2
            await self._done(calls[:middle])
            await self._done(calls[middle:])
        else:
            settle(calls, answers)

    async def _answers(self, calls: list[Call]) -> list[Any]:
        if calls[0].alone is not None:
            return [await calls[0].alone(self._backend)]
        reads, writes = operations(calls)
        answers = await self._backend.run(reads, writes, live=calls[0].live)
        if used := restarted(reads, answers):
            await self._backend.touch(sorted(used))
        return shared_out(calls, answers)
