"""The readers' side, shared by the backends: one ring of entries per stream and process, and who reads it.

A subscriber is a number, the seq it reads next, and a future while it waits. Entries are encoded and decoded once per
process however many read them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Protocol

from ..errors import StreamError
from .base import END_SENTINEL, HEARTBEAT_SENTINEL, StreamEvent, StreamGap, StreamItem, StreamSettings
from .cursor import Cursor, StreamState, parse_cursor, place
from .heartbeat import Heartbeats
from .ring import Entry, Ring

_YIELD_EVERY = 64
_BATCH_BYTES = 65536  # about so much data at once
_KEEP_EVENTS = 256


class Topic:
    """One run in this process: the stream that is there now, if any, and its subscribers."""

    __slots__ = ("ring", "run_id", "subscribers")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.ring: Ring | None = None
        self.subscribers: set[Subscriber] = set()

    def begin(self, ring: Ring) -> Ring:
        """A stream came to be: whoever waited for it reads it from seq 0."""
        self.ring = ring
        for subscriber in self.subscribers:
            if subscriber.awaits_stream:
                subscriber.read(ring, 0)
        self.wake()
        return ring

    def vanish(self) -> None:
        """The stream was deleted: its readers get what is held here, then a gap."""
        if self.ring is not None:
            self.ring.gone = True
            self.ring = None
            self.wake()

    def extend(self, ring: Ring, entries: Iterable[Entry], settings: StreamSettings) -> None:
        """Take in what `ring` does not have yet, and let go of what nobody here reads any more."""
        for entry in entries:
            if entry.seq <= ring.tail:
                continue
            if entry.seq > ring.tail + 1:
                ring.restart(entry.seq)
            ring.add(entry)
        ring.fit(settings.max_stream_bytes)
        low = ring.tail + 1 - settings.live_window
        if ring.tail - ring.low >= 2 * _KEEP_EVENTS:
            low = max(low, min(self.slowest(ring), ring.tail + 1 - _KEEP_EVENTS))
        ring.drop_below(low)

    def wake(self) -> None:
        for subscriber in self.subscribers:
            subscriber.wake()

    def slowest(self, ring: Ring) -> int:
        """The lowest seq that a subscriber of `ring` still has to read."""
        return min((reader.next_seq for reader in self.subscribers if reader.ring is ring), default=ring.tail + 1)


class Subscriber:
    """One reader of one run. `take` gives what is there, `woken` waits for more."""

    __slots__ = (
        "__weakref__",
        "_future",
        "_hub",
        "_outcome",
        "_pages",
        "awaits_stream",
        "cursor",
        "deadline",
        "last_id",
        "next_seq",
        "ring",
        "scheduled",
        "started",
        "topic",
    )

    def __init__(self, topic: Topic, cursor: Cursor, hub: Hub) -> None:
        self.topic = topic
        self.cursor = cursor
        self.ring: Ring | None = None
        self.next_seq = 0
        self.last_id = cursor.text
        self.awaits_stream = False
        self.deadline = math.inf
        self.scheduled = False
        self.started = hub.clock()
        self._hub = hub
        self._pages: list[Entry] | None = None
        self._outcome: StreamGap | StreamError | None = None
        self._future: asyncio.Future[bool] | None = None

    @property
    def is_waiting(self) -> bool:
        return self._future is not None and not self._future.done()

    @property
    def is_supplied(self) -> bool:
        """Whether it still has entries that it was given apart from the ring."""
        return bool(self._pages)

    def place(self, state: StreamState | None, ring: Ring | None) -> None:
        """Find the first seq to read; `ring` belongs to the stream of `state`."""
        settings = self._hub.settings
        placed = place(self.cursor, state, invalid_cursor=settings.invalid_cursor, resume_gap=settings.resume_gap)
        if isinstance(placed, StreamGap):
            self.conclude(placed)
        elif placed is None:
            self.awaits_stream = True
        elif ring is not None:
            self.read(ring, placed)

    def read(self, ring: Ring, seq: int) -> None:
        self.awaits_stream = False
        self.ring = ring
        self.next_seq = seq

    def refilled(self, entries: list[Entry]) -> None:
        """Entries below the ring, contiguous, the first at `next_seq` or before it."""
        if not self._pages:
            self._pages = [entry for entry in reversed(entries) if entry.seq >= self.next_seq]
        self.wake()

    def hand(self, entries: Sequence[Entry]) -> bool:
        """The entries that follow what it had, whatever their numbers. False: it has some, and will ask again."""
        if self._pages:
            return False
        self._pages = list(reversed(entries))
        self.wake()
        return True

    def conclude(self, outcome: StreamGap | StreamError) -> None:
        """Nothing but `outcome` follows."""
        self._outcome = outcome
        self.wake()

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(True)

    def beat(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(False)

    def take(self) -> StreamItem | None:
        """The next item, or None: nothing is there yet."""
        if self._pages:
            return self._deliver(self._pages.pop())
        ring = self.ring
        entry = ring.get(self.next_seq) if ring is not None else None
        if entry is not None:
            return self._deliver(entry)
        conclusion = self._conclusion()
        if conclusion is not None or ring is None:
            return conclusion
        if self.next_seq > ring.tail:
            return StreamGap(self.last_id, None, None) if ring.gone else None
        self._hub.source.refill(self, ring)
        return self._conclusion()

    def take_all(self) -> list[StreamItem]:
        """What is there, up to a fair share; nothing follows END or a gap."""
        items: list[StreamItem] = []
        size = 0
        while len(items) < _YIELD_EVERY and size < _BATCH_BYTES and (item := self._take_after(items)) is not None:
            items.append(item)
            if not isinstance(item, StreamEvent) or item is END_SENTINEL:
                break
            size += len(item.stored or b"")
        return items

    def _take_after(self, taken: list[StreamItem]) -> StreamItem | None:
        """An error waits until what came before it is delivered."""
        try:
            return self.take()
        except StreamError:
            if not taken:
                raise
            return None

    def woken(self) -> asyncio.Future[bool]:
        """True: something may be there; False: the deadline has passed. A bare future: most readers only wait."""
        self._future = asyncio.get_running_loop().create_future()
        self._hub.heartbeats.schedule(self)
        return self._future

    def _conclusion(self) -> StreamGap | None:
        if isinstance(self._outcome, StreamError):
            raise self._outcome
        return self._outcome

    def _deliver(self, entry: Entry) -> StreamEvent:
        self.next_seq = entry.seq + 1
        if entry.is_end:
            return END_SENTINEL
        self._hub.delivered += 1
        event = entry.as_event()
        self.last_id = event.id
        return event


class Source(Protocol):
    """What a hub asks of its backend."""

    def begin(self, subscriber: Subscriber) -> None:
        """Somebody begins to read: place the subscriber, now or later."""

    def refill(self, subscriber: Subscriber, ring: Ring) -> None:
        """The subscriber is behind the ring: get it the entries from `next_seq` on, or a gap, now or later."""

    def release(self, topic: Topic) -> None:
        """Somebody left the topic."""


class Hub:
    """All topics of a bridge, and the one loop that every subscription runs.

    `enter` raises what keeps a subscription from beginning: a bridge that is closed, or of another event loop.
    """

    def __init__(self, settings: StreamSettings, source: Source, enter: Callable[[], None]) -> None:
        self._enter = enter
        self.settings = settings
        self.source = source
        self.topics: dict[str, Topic] = {}
        self.heartbeats = Heartbeats()
        self.subscribers = 0
        self.delivered = 0
        self.gaps = 0

    async def follow(
        self, run_id: str, last_event_id: str | None, heartbeat_interval: float
    ) -> AsyncGenerator[StreamItem, None]:
        self._enter()
        subscriber = self.attach(run_id, last_event_id)
        taken = 0
        try:
            self.source.begin(subscriber)
            while True:
                item = subscriber.take()
                if item is None:
                    subscriber.deadline = self.clock() + heartbeat_interval
                while item is None:
                    item = subscriber.take() if await subscriber.woken() else HEARTBEAT_SENTINEL
                is_last = item is END_SENTINEL or isinstance(item, StreamGap)
                self.gaps += is_last and item is not END_SENTINEL
                yield item
                if is_last:
                    return
                taken += 1
                if taken % _YIELD_EVERY == 0:
                    # A reader that is behind never waits: let the others run all the same.
                    await asyncio.sleep(0)
        finally:
            self.detach(subscriber)
            self.source.release(subscriber.topic)

    async def follow_batches(self, run_id: str, last_event_id: str | None) -> AsyncGenerator[list[StreamItem], None]:
        """What `follow` yields, without heartbeats, and whatever is there at once as one list."""
        self._enter()
        subscriber = self.attach(run_id, last_event_id)
        try:
            self.source.begin(subscriber)
            while True:
                while not (items := subscriber.take_all()):
                    await subscriber.woken()
                last = items[-1]
                self.gaps += isinstance(last, StreamGap)
                yield items
                if last is END_SENTINEL or isinstance(last, StreamGap):
                    return
                if len(items) > 1:
                    # A reader that is behind never waits: let the others run all the same.
                    await asyncio.sleep(0)
        finally:
            self.detach(subscriber)
            self.source.release(subscriber.topic)

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    def topic(self, run_id: str) -> Topic:
        topic = self.topics.get(run_id)
        if topic is None:
            topic = self.topics[run_id] = Topic(run_id)
        return topic

    def attach(self, run_id: str, last_event_id: str | None) -> Subscriber:
        topic = self.topic(run_id)
        subscriber = Subscriber(topic, parse_cursor(last_event_id), self)
        topic.subscribers.add(subscriber)
        self.subscribers += 1
        return subscriber

    def detach(self, subscriber: Subscriber) -> None:
        subscriber.topic.subscribers.discard(subscriber)
        self.subscribers -= 1
        self.heartbeats.forget(subscriber)
        if not self.subscribers:
            self.heartbeats.stop()

    def conclude(self, outcome: Callable[[], StreamError]) -> None:
        """End every subscription with an error."""
        for topic in self.topics.values():
            for subscriber in topic.subscribers:
                subscriber.conclude(outcome())
