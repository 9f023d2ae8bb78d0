"""What a bridge has accepted and not yet stored: bounded, in order, with a queue in front of it when it is full."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from ..errors import StreamEndedError, StreamError
from .base import REMEMBERED_ENDS

MAX_BATCH_EVENTS = 256
MAX_BATCH_BYTES = 4 * 2**20
MAX_RUN_BYTES = 64 * 1024  # more than this is not pushed to the readers: they have to fetch it


@dataclass(slots=True)
class Run:
    """One run as its publisher knows it. `stored`: the last number the server said it has, in the stream `epoch`.

    `ending`: epoch, seq and reason of END, once it is stored.
    """

    run_id: str
    pending: int = 0
    newest: Item | None = None
    end: Item | None = None
    was_refused: bool = False
    epoch: str = ""
    stored: int = 0
    problem: StreamError | None = None
    ending: tuple[str, int, str] | None = None

    def ended_error(self) -> StreamEndedError:
        return StreamEndedError(f"run {self.run_id!r} has ended: nothing is stored after END")

    def report(self) -> None:
        """Raise, once, what became of events that were accepted."""
        problem, self.problem = self.problem, None
        if problem is not None:
            raise problem


@dataclass(slots=True, eq=False)
class Item:
    """One entry on its way. `number` is unique and grows within the bridge; a stored number is never stored again.

    `is_awaited`: its own call waits for it and raises what becomes of it.
    """

    run: Run
    event: bytes
    data: bytes
    size: int
    is_end: bool = False
    number: int = 0
    was_sent: bool = False
    is_awaited: bool = False
    is_settled: bool = False
    problem: StreamError | None = None
    _future: asyncio.Future[None] | None = field(default=None, repr=False)

    async def settled(self) -> None:
        """Wait until the item is stored, or `problem` says why it never will be."""
        if not self.is_settled:
            if self._future is None:
                self._future = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._future)

    def settle(self, problem: StreamError | None = None) -> None:
        self.is_settled = True
        self.problem = problem
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Buffer:
    """Accepts in the order of the calls. `ended` remembers the last 10,000 runs that this bridge knows to be over.

    `accepted` is called for every item that is taken in.
    """

    def __init__(self, max_events: int, max_bytes: int, accepted: Callable[[Item], None]) -> None:
        self._accepted = accepted
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._queue: deque[tuple[Item, asyncio.Future[None]]] = deque()
        self._numbers = 0
        self._pending = 0
        self.bytes = 0
        self.runs: dict[str, Run] = {}
        self.ended: OrderedDict[str, Run] = OrderedDict()

    def __len__(self) -> int:
        return self._pending

    def __iter__(self) -> Iterator[Item]:
        """What is pending, oldest first."""
        return (item for item in self._items if not item.is_settled)

    def run(self, run_id: str) -> Run:
        """The run, which an event may follow. Raises what its last events came to, and `StreamEndedError`."""
        over = self.ended.get(run_id)
        if over is not None:
            over.problem = None
            raise over.ended_error()
        run = self.runs.get(run_id)
        if run is None:
            run = self.runs[run_id] = Run(run_id)
        run.report()
        if run.end is not None:
            raise run.ended_error()
        return run

    def known(self, run_id: str) -> Run | None:
        return self.runs.get(run_id) or self.ended.get(run_id)

    def offer(self, item: Item) -> bool:
        """Take the item if there is room and nobody waits."""
        if self._queue or not self._has_room(item):
            return False
        self._take(item)
        return True

    async def accept(self, item: Item) -> None:
        """Take the item in its turn. A call cancelled before its turn leaves nothing behind."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (item, turn)
        self._queue.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # an admission may have passed over it already
                    self._queue.remove(place)
                self._admit()
            raise

    def batch(self) -> dict[str, list[Item]]:
        """The oldest items, by their runs' ids, left where they are until they are settled."""
        chosen: dict[str, list[Item]] = {}
        sizes: dict[str, int] = {}
        size = 0
        for item in islice(self, MAX_BATCH_EVENTS):
            run_id = item.run.run_id
            size += item.size
            of_run = sizes[run_id] = sizes.get(run_id, 0) + item.size
            if chosen and (size > MAX_BATCH_BYTES or (of_run > MAX_RUN_BYTES and of_run > item.size)):
                break
            if run_id in chosen:
                chosen[run_id].append(item)
            else:
                chosen[run_id] = [item]
        return chosen

    def last(self, run_id: str | None) -> Item | None:
        """The newest item of the run, or of all, that is pending."""
        if run_id is None:
            return next((item for item in reversed(self._items) if not item.is_settled), None)
        run = self.runs.get(run_id)
        return run.newest if run is not None and run.pending else None

    def oldest(self) -> Item | None:
        return next(iter(self), None)

    def settle(self, items: Iterable[Item], problem: StreamError | None = None) -> None:
        """They are stored, or `problem` says why they never will be."""
        for item in items:
            item.settle(problem)
            item.run.pending -= 1
            self._pending -= 1
            self.bytes -= item.size
        while self._items and self._items[0].is_settled:
            self._items.popleft()
        if len(self._items) > 2 * self._pending:
            self._items = deque(self)
        self._admit()

    def of_run(self, run: Run) -> list[Item]:
        return [item for item in self if item.run is run]

    def over(self, run: Run) -> None:
        """Remember that the run has ended."""
        self.runs.pop(run.run_id, None)
        run.newest = None  # its data are of no use any more
        self.ended[run.run_id] = run
        if len(self.ended) > REMEMBERED_ENDS:
            self.ended.popitem(last=False)

    def forget(self, run_id: str) -> bool:
        """False: something of the run is still to be stored."""
        self.ended.pop(run_id, None)
        run = self.runs.get(run_id)
        if run is None:
            return True
        if run.pending or any(item.run is run for item, _ in self._queue):
            return False
        del self.runs[run_id]
        return True

    def close(self, problem: StreamError) -> None:
        """Nothing will be stored any more: tell whoever waits."""
        queue, self._queue = self._queue, deque()
        for item, turn in queue:
            item.problem = problem
            if not turn.done():
                turn.set_result(None)
        self.settle(list(self), problem)

    def _has_room(self, item: Item) -> bool:
        pending = self._pending
        return not pending or (pending < self._max_events and self.bytes + item.size <= self._max_bytes)

    def _admit(self) -> None:
        while self._queue and self._has_room(self._queue[0][0]):
            item, turn = self._queue.popleft()
            if turn.done():
                continue
            self._take(item)
            turn.set_result(None)

    def _take(self, item: Item) -> None:
        run = item.run
        if run.end is not None:
            item.settle(None if item.is_end else run.ended_error())
            return
        self._numbers += 1
        item.number = self._numbers
        self._items.append(item)
        self._pending += 1
        self.bytes += item.size
        run.pending += 1
        run.newest = item
        if item.is_end:
            run.end = item
        self._accepted(item)
