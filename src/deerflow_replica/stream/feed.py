"""Brings the streams of a Redis server to the hub: news by one way, reads on a connection of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from .._drivers.redis import RedisServer
from ..errors import StreamError, StreamUnavailableError
from .backoff import Backoff
from .base import StreamGap, StreamSettings
from .contact import Contact
from .hub import Hub, Subscriber, Topic
from .keys import StreamKeys
from .live import Live
from .orphans import Orphans
from .reads import Reads
from .ring import Ring
from .tasks import is_cancelled

_LOG = logging.getLogger(__name__)
_LINGER_SECONDS = 1.0


Listen = Callable[[Hub, Contact, Callable[[str], None]], Live]


class FeedTimes(NamedTuple):
    check_interval_seconds: float
    unavailable_after_seconds: float


class Feed:
    """The hub's source. Its tasks and connections live while there are topics, and a moment longer."""

    def __init__(
        self,
        settings: StreamSettings,
        server: RedisServer,
        keys: StreamKeys,
        times: FeedTimes,
        orphans: Orphans,
        listen: Listen,
        enter: Callable[[], None],
    ) -> None:
        self.hub = Hub(settings, self, enter)
        self.server = server
        self.keys = keys
        self.times = times
        self.orphans = orphans
        self.listen = listen
        self.contact = Contact(
            self.hub, orphans.lost_contact, unavailable_after_seconds=times.unavailable_after_seconds
        )
        self._session: _Session | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._endings: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def reconnects(self) -> int:
        return self.contact.losses

    def begin(self, subscriber: Subscriber) -> None:
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

    def fail(self, error: StreamError) -> None:
        """Every subscription ends with the error; the next one begins with new connections."""
        self.hub.conclude(lambda: error)
        self._end_session()

    async def close(self) -> None:
        self._is_closed = True
        self.hub.conclude(lambda: StreamUnavailableError("the stream bridge is closed"))
        self.hub.heartbeats.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._drop_unread()
        self._end_session()
        if self._endings:
            await asyncio.wait(self._endings)

    def _sweep(self) -> None:
        self._sweeper = None
        self._drop_unread()
        if not self.hub.topics:
            self._end_session()
        elif self._session is not None:
            self._session.wake()

    def _drop_unread(self) -> None:
        topics = self.hub.topics
        for topic in [topic for topic in topics.values() if not topic.subscribers]:
            del topics[topic.run_id]

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            ending = asyncio.create_task(session.close(), name="stream-feed-close")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)


class _Session:
    """One life of the feed: what listens for news, and what reads, a task for each."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._contact = feed.contact
        self._orphans = feed.orphans
        self._reads = Reads(feed.hub, feed.server, feed.keys, feed.orphans, feed.contact)
        self._live = feed.listen(feed.hub, feed.contact, self._reads.mark)
        self._tasks = [
            asyncio.create_task(self._run(self._listen), name="stream-feed-listen"),
            asyncio.create_task(self._run(self._read), name="stream-feed-read"),
        ]

    def join(self, subscriber: Subscriber) -> None:
        self._reads.join(subscriber)

    def page(self, subscriber: Subscriber) -> None:
        self._reads.page(subscriber)

    def wake(self) -> None:
        self._reads.wake()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._live.close()
        await self._reads.close()

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        """A defect here must end the subscriptions: nobody may wait for ever."""
        try:
            await work()
        except StreamError as error:
            self._feed.fail(error)
        except Exception as error:
            _LOG.exception("the stream feed broke")
            broken = StreamError("the stream feed broke")
            broken.__cause__ = error
            self._feed.fail(broken)

    async def _listen(self) -> None:
        await self._live.listen(self.wake)

    async def _read(self) -> None:
        backoff = Backoff()
        next_check = self._next_check()
        while not is_cancelled():
            try:
                await self._reads.wanted(min(next_check, self._orphans.due, self._live.due))
                await self._serve()
                if asyncio.get_running_loop().time() >= next_check:
                    next_check = self._next_check()
                    await self._reads.check(self._live)
                await self._orphans.settle(self._reads.call)
                # Not before: an answer to PING alone is not what readers need.
                self._contact.restored("reads")
                backoff.reset()
            except StreamUnavailableError as error:
                self._contact.lost("reads", error)
                self.wake()
                await backoff.wait()

    async def _serve(self) -> None:
        if self._contact.is_lost("reads"):
            await self._reads.call(("PING",))
        await self._reads.serve(self._live)
        await self._live.arrange(self._reads.readable, self._reads.call)

    def _next_check(self) -> float:
        return asyncio.get_running_loop().time() + self._feed.times.check_interval_seconds / 2
