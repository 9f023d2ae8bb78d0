"""Reads streams for the hub: places who joins, refills who is behind, and looks after topics that are silent.

Many topics per round trip, one round trip at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from .._drivers.redis import Command, Lane, RedisServer, Script
from ..errors import StreamError, StreamUnavailableError
from .base import StreamGap
from .contact import Contact, parts
from .cursor import Position
from .hub import Hub, Subscriber, Topic
from .keys import StreamKeys
from .live import Live
from .messages import Page, parse_page
from .orphans import Orphans
from .ring import Ring
from .stock import START, StockPage, StockRing, place_in_stock

_PAGE_EVENTS = 512
_PAGE_BYTES = 4 * 2**20
_TOPICS_PER_TRIP = 512

READ = Script(__package__ or "", "read.lua")
CHECK = Script(__package__ or "", "check.lua")
WAKE = Script(__package__ or "", "wake.lua")


class Reads:
    """What is asked for by `join`, `page` and `mark` is done by the next `serve`.

    `call` raises `StreamUnavailableError`, after which everything that was asked for still waits.
    """

    def __init__(self, hub: Hub, server: RedisServer, keys: StreamKeys, orphans: Orphans, contact: Contact) -> None:
        self._hub = hub
        self._server = server
        self._keys = keys
        self._orphans = orphans
        self._contact = contact
        self._lane = Lane(server, [READ, CHECK, WAKE, *orphans.scripts])
        self._joining: dict[str, list[Subscriber]] = {}
        self._paging: dict[Subscriber, None] = {}
        self._stale: set[str] = set()
        self._checked: set[str] = set()
        self._work = asyncio.Event()
        self.readable: set[str] = set()

    def join(self, subscriber: Subscriber) -> None:
        self._joining.setdefault(subscriber.topic.run_id, []).append(subscriber)
        self.wake()

    def page(self, subscriber: Subscriber) -> None:
        self._paging[subscriber] = None
        self.wake()

    def mark(self, name: str) -> None:
        self._stale.add(name)
        self.wake()

    def wake(self) -> None:
        self._work.set()

    async def wanted(self, until: float) -> None:
        """Wait until there is something to serve, or for the time `until` of the loop."""
        try:
            async with asyncio.timeout_at(until):
                await self._work.wait()
        except TimeoutError:
            return
        self._work.clear()

    async def call(self, *commands: Command) -> list[Any]:
        made = self._lane.connections_made
        replies = await self._lane.call(*commands)
        if made and made != self._lane.connections_made:
            self._contact.renewed()
        return replies

    async def serve(self, live: Live) -> None:
        """Everything that waits for a read and can have one now."""
        topics = self._hub.topics.keys()
        self._stale &= topics
        self.readable &= topics
        for name in self._joining.keys() - topics:
            del self._joining[name]
        await self._read_topics((self._stale | self._joining.keys()) & live.acknowledged, live)
        paging, self._paging = self._paging, {}
        try:
            await self._read_pages([reader for reader in paging if _is_behind(reader)])
        except StreamUnavailableError:
            self._paging |= paging
            raise

    async def check(self, live: Live) -> None:
        """Look after the topics that were silent: lost pushes, deleted streams, owners that are gone.

        Done twice in an interval, in which every topic is heard of once: what the last look read is left out.
        """
        silent = live.silent()
        self._checked = silent - self._checked
        await self._read_topics(await self._changed(self._checked & live.acknowledged), live)
        self._orphans.forget()
        for name in silent:
            topic = self._hub.topics.get(name)
            if topic is not None and topic.ring is not None and not topic.ring.ended and topic.subscribers:
                self._orphans.watch(name, topic.ring.owner)
        await self._orphans.look(self.call)

    async def close(self) -> None:
        await self._lane.close()

    async def _changed(self, names: AbstractSet[str]) -> set[str]:
        """The topics whose streams are not as they are known here. Nearly all are: one script for many costs little.

        On another server than the one that told what is known the newest entry is to be compared too, by a read.
        """
        generation = self._contact.generation
        changed = {name for name in names if self._is_of_before(name, generation)}
        for part in parts(names - changed, _TOPICS_PER_TRIP):
            keys = [key for name in part for key in self._keys.of_run(name)]
            try:
                (reply,) = await self.call(CHECK.command(keys, [text for name in part for text in self._known(name)]))
            except StreamUnavailableError:
                self._stale.update(names)
                raise
            if isinstance(reply, Exception) or generation != self._contact.generation:
                return set(names)
            changed.update(part[number - 1] for number in reply)
        return changed

    def _is_of_before(self, name: str, generation: int) -> bool:
        topic = self._hub.topics.get(name)
        return topic is not None and topic.ring is not None and topic.ring.generation != generation

    def _known(self, name: str) -> tuple[str, str]:
        """Epoch and tail; of a stock bridge's stream nothing that a script would find."""
        topic = self._hub.topics.get(name)
        if topic is None or topic.ring is None:
            return "", ""
        return str(topic.ring.epoch), str(topic.ring.tail)

    async def _read_topics(self, names: AbstractSet[str], live: Live) -> None:
        for part in parts(names, _TOPICS_PER_TRIP):
            joining = {name: self._joining.pop(name) for name in part if name in self._joining}
            versions = [live.version(name) for name in part]
            tails = [self._tail(name) for name in part]
            generation = self._contact.generation
            self._stale.difference_update(part)
            try:
                replies = await self.call(*(self._wanted(name, joining.get(name, ())) for name in part))
            except StreamUnavailableError:
                self._put_back(part, joining)
                raise
            if generation != self._contact.generation:
                self._put_back(part, joining)
                continue
            for name, version, tail, reply in zip(part, versions, tails, replies, strict=True):
                topic = self._hub.topics.get(name)
                if topic is None:
                    continue
                if isinstance(reply, Exception):
                    self._on_refusal(topic, reply)
                    continue
                waiting = [reader for reader in joining.get(name, []) if reader in topic.subscribers]
                self.readable.add(name)
                page = parse_page(reply)
                if isinstance(page, StockPage):
                    self._on_stock(topic, page, waiting)
                elif page is not None:
                    self._on_page(topic, page, waiting, known_tail=tail, generation=generation)
                elif live.version(name) == version:
                    self._on_absence(topic, waiting)
                else:
                    self._again(topic, waiting)

    def _put_back(self, names: list[str], joining: dict[str, list[Subscriber]]) -> None:
        self._stale.update(names)
        for name, subscribers in joining.items():
            self._joining[name] = subscribers + self._joining.get(name, [])
        self.wake()

    def _tail(self, name: str) -> int:
        topic = self._hub.topics.get(name)
        return topic.ring.tail if topic is not None and topic.ring is not None else -1

    def _wanted(self, name: str, joining: Iterable[Subscriber]) -> Command:
        """A read from the end of the ring; without a ring from the lowest place somebody asks for."""
        topic = self._hub.topics.get(name)
        if topic is not None and isinstance(topic.ring, StockRing):
            return self._after_command(name, START, events=0)
        if topic is not None and topic.ring is not None:
            # The server may be another one than before: then the newest entry is compared.
            known = topic.ring.generation == self._contact.generation
            return self._page_command(name, str(max(topic.ring.tail + known, 0)), str(topic.ring.epoch))
        if topic is not None and any(reader.awaits_stream for reader in topic.subscribers):
            return self._page_command(name, "0", "")
        places = [reader.cursor.after for reader in joining]
        exact = [after for after in places if isinstance(after, Position)]
        if exact and len(exact) == len(places) and len({after.epoch for after in exact}) == 1:
            return self._page_command(name, str(min(after.seq for after in exact) + 1), str(exact[0].epoch))
        return self._page_command(name, "", "")

    def _page_command(self, name: str, seq: str, epoch: str) -> Command:
        return READ.command(self._keys.of_run(name), (seq, epoch, _PAGE_EVENTS, _PAGE_BYTES))

    def _after_command(self, name: str, place: Position, events: int = _PAGE_EVENTS) -> Command:
        return READ.command(self._keys.of_run(name), (str(place), "after", events, _PAGE_BYTES))

    def _on_refusal(self, topic: Topic, error: Exception) -> None:
        """The server answers, and will not let us read this stream."""
        self.readable.discard(topic.run_id)
        for subscriber in topic.subscribers:
            refusal = StreamError(f"run {topic.run_id!r} cannot be read from {self._server.name}: {error}")
            refusal.__cause__ = error
            subscriber.conclude(refusal)

    def _on_page(
        self, topic: Topic, page: Page, joining: list[Subscriber], *, known_tail: int, generation: int
    ) -> None:
        ring = topic.ring
        if ring is not None and (page.tail < known_tail or _is_another(page, ring)):
            # Made anew, or the server came back without its last writes.
            topic.vanish()
            ring = None
        if ring is None:
            ring = topic.begin(Ring(page.epoch, page.entries[0].seq if page.entries else page.tail + 1))
        ring.owner = page.owner
        ring.generation = generation
        topic.extend(ring, page.entries, self._hub.settings)
        for subscriber in joining:
            subscriber.place(page.state(), ring)
        if ring.tail < page.tail:
            self.mark(topic.run_id)
        topic.wake()

    def _on_stock(self, topic: Topic, page: StockPage, joining: list[Subscriber]) -> None:
        """A stock bridge began this stream, so every reader goes by the id up to which it has been given entries."""
        ring = topic.ring
        if not isinstance(ring, StockRing) or page.last < ring.latest:
            topic.vanish()
            waiting = [reader for reader in topic.subscribers if reader.awaits_stream]
            ring = StockRing()
            topic.begin(ring)
            for reader in waiting:
                ring.put(reader, START if page.complete else page.gap(reader.last_id))
        ring.owner = page.owner
        ring.advance(page.last)
        for reader in joining:
            ring.put(reader, place_in_stock(reader.cursor, page, invalid_cursor=self._hub.settings.invalid_cursor))
        topic.wake()

    def _on_absence(self, topic: Topic, joining: list[Subscriber]) -> None:
        topic.vanish()
        for subscriber in joining:
            subscriber.place(None, None)
            subscriber.wake()

    def _again(self, topic: Topic, joining: list[Subscriber]) -> None:
        """The answer is older than what was pushed meanwhile."""
        if joining:
            self._joining[topic.run_id] = joining + self._joining.get(topic.run_id, [])
        self.mark(topic.run_id)

    async def _read_pages(self, readers: list[Subscriber]) -> None:
        """What is still retained for readers that are behind the ring."""
        for part in parts(readers, _TOPICS_PER_TRIP):
            alike: dict[Command, list[Subscriber]] = {}
            for reader in part:
                alike.setdefault(self._missing(reader), []).append(reader)
            replies = await self.call(*alike)
            for same, reply in zip(alike.values(), replies, strict=True):
                if isinstance(reply, Exception):
                    self._on_refusal(same[0].topic, reply)
                else:
                    _on_refills(same, parse_page(reply))

    def _missing(self, reader: Subscriber) -> Command:
        if isinstance(reader.ring, StockRing):
            return self._after_command(reader.topic.run_id, reader.ring.places[reader])
        epoch = str(reader.ring.epoch) if reader.ring else ""
        return self._page_command(reader.topic.run_id, str(reader.next_seq), epoch)


def _is_another(page: Page, ring: Ring) -> bool:
    """Whether the stream is not the one that was read before."""
    if page.epoch != ring.epoch or ring.contradicts(page.entries):
        return True
    return page.ended and not ring.ended and page.tail <= ring.tail


def _on_refills(readers: list[Subscriber], page: Page | StockPage | None) -> None:
    """Readers of one ring that asked for the same."""
    ring = readers[0].ring
    if isinstance(ring, StockRing) and isinstance(page, StockPage):
        ring.refill(readers, page)
        return
    for reader in readers:
        _on_refill(reader, page if isinstance(page, Page) else None)


def _is_behind(reader: Subscriber) -> bool:
    """What it asked for is still to be had: it may have asked twice, and have got the answer."""
    return reader in reader.topic.subscribers and not reader.is_supplied


def _on_refill(reader: Subscriber, page: Page | None) -> None:
    ring = reader.ring
    if ring is not None and (reader.next_seq >= ring.low or reader.is_supplied):
        reader.wake()  # it asked twice, and got what it needs
    elif ring is None or page is None or page.epoch != ring.epoch:
        reader.conclude(StreamGap(reader.last_id, None, None))
    elif page.tail < reader.next_seq:
        reader.wake()  # it asked before there was more, and fell behind meanwhile
    elif not page.entries or page.entries[0].seq > reader.next_seq:
        reader.conclude(page.state().gap(reader.last_id))
    else:
        reader.refilled(page.entries)
