"""Brings the streams of a Redis server to the hub: one subscriber connection for pushes, one for reads.

Order of things for every topic: SUBSCRIBE, wait for its acknowledgement, read the stream, then take the pushes that
follow. Whatever does not fit (a hole, a lost push, a new connection) marks the topic for another read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from .._drivers.redis import Command, Connection, Lane, RedisServer, Script
from ..errors import StreamError, StreamUnavailableError
from .base import StreamGap, StreamSettings
from .cursor import Position
from .hub import Hub, Subscriber, Topic
from .keys import StreamKeys
from .messages import Page, Push, parse_page, parse_push
from .orphans import Orphans
from .ring import Entry, Ring

_LOG = logging.getLogger(__name__)
_BACKOFF_SECONDS = (0.02, 0.5)
_LINGER_SECONDS = 1.0
_PAGE_EVENTS = 512
_PAGE_BYTES = 4 * 2**20
_BATCH = 256
_KEEP_EVENTS = 256

T = TypeVar("T")
READ = Script(__package__ or "", "read.lua")


class FeedTimes(NamedTuple):
    check_interval_seconds: float
    unavailable_after_seconds: float


class Feed:
    """The hub's source. Its two tasks and connections live while there are topics, and a moment longer."""

    def __init__(
        self,
        settings: StreamSettings,
        server: RedisServer,
        keys: StreamKeys,
        times: FeedTimes,
        orphans: Orphans,
        enter: Callable[[], None],
    ) -> None:
        self.hub = Hub(settings, self)
        self.server = server
        self.keys = keys
        self.times = times
        self.orphans = orphans
        self.reconnects = 0
        self._enter = enter
        self._session: _Session | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._endings: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def begin(self, subscriber: Subscriber) -> None:
        self._enter()
        if self._session is None:
            self._session = _Session(self)
        self._session.join(subscriber)

    def refill(self, subscriber: Subscriber, ring: Ring) -> None:
        if ring.gone or self._session is None:
            subscriber.conclude(StreamGap(subscriber.last_id, None, None))
        else:
            self._session.page(subscriber)

    def release(self, topic: Topic) -> None:
        if self._is_closed:
            self.hub.topics.pop(topic.run_id, None)
        elif not topic.subscribers and self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._sweep)

    def vanish(self, run_id: str) -> None:
        """This process deleted the stream."""
        topic = self.hub.topics.get(run_id)
        if topic is not None:
            topic.vanish()

    def restart(self) -> None:
        """The next subscription begins with new connections."""
        self._end_session()

    async def close(self) -> None:
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._end_session()
        if self._endings:
            await asyncio.wait(self._endings)

    def _sweep(self) -> None:
        self._sweeper = None
        topics = self.hub.topics
        for topic in [topic for topic in topics.values() if not topic.subscribers]:
            del topics[topic.run_id]
        if not topics:
            self._end_session()
        elif self._session is not None:
            self._session.wake()

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            ending = asyncio.create_task(session.close(), name="stream-feed-close")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)


class _Session:
    """One life of the feed: what is subscribed, who has to be placed, which topics have to be read."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._hub = feed.hub
        self._push = Connection(feed.server)
        self._lane = Lane(feed.server, [READ, *feed.orphans.scripts])
        self._asked: set[str] = set()
        self._acknowledged: set[str] = set()
        self._joining: dict[str, list[Subscriber]] = {}
        self._paging: list[Subscriber] = []
        self._stale: set[str] = set()
        self._versions: dict[str, int] = {}
        self._active: set[str] = set()
        self._down_since: dict[str, float] = {}
        self._work = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._run(self._listen), name="stream-feed-listen"),
            asyncio.create_task(self._run(self._read), name="stream-feed-read"),
        ]

    def join(self, subscriber: Subscriber) -> None:
        self._joining.setdefault(subscriber.topic.run_id, []).append(subscriber)
        self.wake()

    def page(self, subscriber: Subscriber) -> None:
        if subscriber not in self._paging:
            self._paging.append(subscriber)
        self.wake()

    def wake(self) -> None:
        self._work.set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._push.close()
        await self._lane.close()

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        """A defect here must end the subscriptions: nobody may wait for ever."""
        try:
            await work()
        except Exception as error:
            _LOG.exception("the stream feed broke")
            broken = StreamError("the stream feed broke")
            broken.__cause__ = error
            self._hub.conclude(lambda: broken)
            self._feed.restart()

    # The listener: pushes and acknowledgements, in the order in which the server sent them.

    async def _listen(self) -> None:
        wait = _BACKOFF_SECONDS[0]
        while True:
            try:
                await self._push.open()
                self._restored("push")
                self.wake()
                wait = _BACKOFF_SECONDS[0]
                await self._take_pushes()
            except StreamUnavailableError as error:
                self._lost("push", error)
                await self._push.close()
                self._asked.clear()
                self._acknowledged.clear()
                await asyncio.sleep(wait)
                wait = min(wait * 2, _BACKOFF_SECONDS[1])

    async def _take_pushes(self) -> None:
        interval = self._feed.times.check_interval_seconds
        is_asked = False
        while True:
            message = await self._push.read(interval)
            if message is not None:
                is_asked = False
                self._on_message(message)
            elif is_asked:
                raise StreamUnavailableError(f"{self._feed.server.name} is silent: no answer to PING on the push side")
            else:
                is_asked = True
                await self._push.send(("PING",))

    def _on_message(self, message: object) -> None:
        if not isinstance(message, list) or len(message) < 3:
            return
        kind, channel, body = message[0], bytes(message[1]).decode("utf-8", "replace"), message[2]
        run_id = self._feed.keys.run_of(channel)
        if kind == b"subscribe":
            self._acknowledged.add(run_id)
            self._mark(run_id)
        elif kind == b"message":
            self._versions[run_id] = self._versions.get(run_id, 0) + 1
            self._active.add(run_id)
            topic = self._hub.topics.get(run_id)
            if topic is not None:
                self._on_push(topic, parse_push(body))

    def _on_push(self, topic: Topic, push: Push) -> None:
        ring = topic.ring
        if push.kind == "gone":
            if ring is not None and ring.epoch == push.epoch:
                topic.vanish()
        elif ring is not None and push.epoch < ring.epoch:
            return
        elif ring is None or push.epoch > ring.epoch or push.first > ring.tail + 1 or push.kind == "tail":
            self._mark(topic.run_id)
        else:
            self._extend(topic, ring, push.entries)
            topic.wake()

    # The reader: subscribes, places, refills and checks, many topics per round trip.

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        wait = _BACKOFF_SECONDS[0]
        next_check = clock() + self._feed.times.check_interval_seconds
        while True:
            try:
                await self._wait_for_work(min(next_check, self._feed.orphans.due))
                if "reads" in self._down_since:
                    await self._call(("PING",))
                await self._subscribe()
                await self._serve()
                if clock() >= next_check:
                    next_check = clock() + self._feed.times.check_interval_seconds
                    await self._check()
                await self._feed.orphans.settle(self._call)
                wait = _BACKOFF_SECONDS[0]
            except StreamUnavailableError as error:
                self._lost("reads", error)
                self.wake()
                await asyncio.sleep(wait)
                wait = min(wait * 2, _BACKOFF_SECONDS[1])

    async def _call(self, *commands: Command) -> list[Any]:
        replies = await self._lane.call(*commands)
        self._restored("reads")
        return replies

    async def _wait_for_work(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                await self._work.wait()
        except TimeoutError:
            return
        self._work.clear()

    async def _subscribe(self) -> None:
        """Bring the channels of the push connection in line with the topics; the listener takes the answers."""
        wanted = self._hub.topics.keys()
        for name in self._joining.keys() - wanted:
            del self._joining[name]
        if not self._push.is_open:
            return
        new, old = wanted - self._asked, self._asked - wanted
        self._asked |= new
        self._asked -= old
        self._acknowledged -= old
        for name in old:
            self._versions.pop(name, None)
        for verb, names in (("UNSUBSCRIBE", old), ("SUBSCRIBE", new)):
            for part in _parts(names, _BATCH):
                try:
                    await self._push.send((verb, *map(self._feed.keys.stream, part)))
                except StreamUnavailableError:
                    return  # the listener finds the same, reconnects, and all of them are new

    async def _serve(self) -> None:
        """Everything that waits for a read and can have one now."""
        self._stale &= self._hub.topics.keys()
        ready = (self._stale | self._joining.keys()) & self._acknowledged
        await self._read_topics(ready)
        paging, self._paging = self._paging, []
        try:
            await self._read_pages([reader for reader in paging if reader in reader.topic.subscribers])
        except StreamUnavailableError:
            self._paging += paging
            raise

    async def _check(self) -> None:
        """Look after the topics that were silent: lost pushes, deleted streams, owners that are gone."""
        self._feed.orphans.forget()
        silent = self._hub.topics.keys() - self._active
        self._active.clear()
        await self._read_topics(silent & self._acknowledged)
        for name in silent:
            topic = self._hub.topics.get(name)
            if topic is not None and topic.ring is not None and not topic.ring.ended and topic.subscribers:
                self._feed.orphans.watch(name, topic.ring.owner)
        await self._feed.orphans.look(self._call)

    async def _read_topics(self, names: Iterable[str]) -> None:
        for part in _parts(names, _BATCH):
            joining = {name: self._joining.pop(name) for name in part if name in self._joining}
            versions = {name: self._versions.get(name, 0) for name in part}
            self._stale.difference_update(part)
            try:
                replies = await self._call(*(self._wanted(name, joining.get(name, ())) for name in part))
            except StreamUnavailableError:
                self._stale.update(part)
                for name, subscribers in joining.items():
                    self._joining[name] = subscribers + self._joining.get(name, [])
                raise
            for name, reply in zip(part, replies, strict=True):
                topic = self._hub.topics.get(name)
                if topic is None:
                    continue
                if isinstance(reply, Exception):
                    self._on_refusal(topic, reply)
                    continue
                is_current = self._versions.get(name, 0) == versions[name]
                waiting = [reader for reader in joining.get(name, []) if reader in topic.subscribers]
                self._on_page(topic, parse_page(reply), waiting, is_current=is_current)

    def _wanted(self, name: str, joining: Iterable[Subscriber]) -> Command:
        """A read from the end of the ring; without a ring from the lowest place somebody asks for."""
        topic = self._hub.topics.get(name)
        if topic is not None and topic.ring is not None:
            return self._page_command(name, str(topic.ring.tail + 1), str(topic.ring.epoch))
        if topic is not None and any(reader.awaits_stream for reader in topic.subscribers):
            return self._page_command(name, "0", "")
        places = [reader.cursor.after for reader in joining]
        exact = [after for after in places if isinstance(after, Position)]
        if exact and len(exact) == len(places) and len({after.epoch for after in exact}) == 1:
            return self._page_command(name, str(min(after.seq for after in exact) + 1), str(exact[0].epoch))
        return self._page_command(name, "", "")

    def _page_command(self, name: str, seq: str, epoch: str) -> Command:
        return READ.command(self._feed.keys.of_run(name), (seq, epoch, _PAGE_EVENTS, _PAGE_BYTES))

    def _on_refusal(self, topic: Topic, error: Exception) -> None:
        """The server answers, and will not let us read this stream."""
        for subscriber in topic.subscribers:
            refusal = StreamError(f"run {topic.run_id!r} cannot be read from {self._feed.server.name}: {error}")
            refusal.__cause__ = error
            subscriber.conclude(refusal)

    def _on_page(self, topic: Topic, page: Page | None, joining: list[Subscriber], *, is_current: bool) -> None:
        if page is None:
            self._on_absence(topic, joining, is_current=is_current)
            return
        ring = topic.ring
        if ring is not None and page.epoch > ring.epoch:
            topic.vanish()
            ring = None
        if ring is not None and page.epoch < ring.epoch:
            self._again(topic, joining)
            return
        if ring is None:
            ring = topic.begin(Ring(page.epoch, page.entries[0].seq if page.entries else page.tail + 1))
        ring.owner = page.owner
        self._extend(topic, ring, page.entries)
        for subscriber in joining:
            subscriber.place(page.state(), ring)
        if ring.tail < page.tail:
            self._mark(topic.run_id)
        topic.wake()

    def _on_absence(self, topic: Topic, joining: list[Subscriber], *, is_current: bool) -> None:
        if not is_current:
            self._again(topic, joining)
            return
        topic.vanish()
        for subscriber in joining:
            subscriber.place(None, None)
            subscriber.wake()

    def _again(self, topic: Topic, joining: list[Subscriber]) -> None:
        """The answer is older than what was pushed meanwhile."""
        if joining:
            self._joining[topic.run_id] = joining + self._joining.get(topic.run_id, [])
        self._mark(topic.run_id)

    async def _read_pages(self, readers: list[Subscriber]) -> None:
        """What is still retained for readers that are behind the ring."""
        commands = []
        for reader in readers:
            epoch = str(reader.ring.epoch) if reader.ring else ""
            commands.append(self._page_command(reader.topic.run_id, str(reader.next_seq), epoch))
        for part in _parts(range(len(readers)), _BATCH):
            replies = await self._call(*(commands[index] for index in part))
            for index, reply in zip(part, replies, strict=True):
                if isinstance(reply, Exception):
                    self._on_refusal(readers[index].topic, reply)
                else:
                    _on_refill(readers[index], parse_page(reply))

    def _extend(self, topic: Topic, ring: Ring, entries: Iterable[Entry]) -> None:
        settings = self._hub.settings
        for entry in entries:
            if entry.seq <= ring.tail:
                continue
            if entry.seq > ring.tail + 1:
                ring.restart(entry.seq)
            ring.add(entry)
        ring.fit(settings.max_stream_bytes)
        low = ring.tail + 1 - settings.live_window
        if ring.tail - ring.low >= 2 * _KEEP_EVENTS:
            low = max(low, min(topic.slowest(ring), ring.tail + 1 - _KEEP_EVENTS))
        ring.drop_below(low)

    def _mark(self, name: str) -> None:
        self._stale.add(name)
        self.wake()

    def _restored(self, part: str) -> None:
        self._down_since.pop(part, None)

    def _lost(self, part: str, error: StreamUnavailableError) -> None:
        now = asyncio.get_running_loop().time()
        self._feed.orphans.lost_contact()
        if part not in self._down_since:
            self._down_since[part] = now
            self._feed.reconnects += 1
            _LOG.warning("%s; subscribers wait", error)
        limit = self._feed.times.unavailable_after_seconds
        down = now - self._down_since[part]
        for topic in self._hub.topics.values():
            for subscriber in topic.subscribers:
                if min(down, now - subscriber.started) >= limit:
                    subscriber.conclude(StreamUnavailableError(f"{error}; no contact for {limit} s"))


def _on_refill(reader: Subscriber, page: Page | None) -> None:
    ring = reader.ring
    if ring is not None and reader.next_seq >= ring.low:
        reader.wake()
    elif ring is None or page is None or page.epoch != ring.epoch:
        reader.conclude(StreamGap(reader.last_id, None, None))
    elif not page.entries or page.entries[0].seq > reader.next_seq:
        reader.conclude(page.state().gap(reader.last_id))
    else:
        reader.refilled(page.entries)


def _parts(items: Iterable[T], size: int) -> Iterable[list[T]]:
    every = list(items)
    return (every[start : start + size] for start in range(0, len(every), size))
