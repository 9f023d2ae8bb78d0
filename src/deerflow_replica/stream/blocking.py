"""News of streams by blocking reads, for a server on which pub/sub is not allowed.

Every shard is a task with a connection that blocks in one XREAD of all its streams, each from the end of its ring on.
An XREAD gives what is behind the ids it is asked with, whenever it is asked: nothing is lost between two of them, nor
by one that was cut off.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

from .._drivers.redis import Command, Connection, RedisServer, ResponseError
from ..errors import StreamError, StreamUnavailableError
from .backoff import Backoff
from .contact import Contact
from .cursor import Position
from .hub import Hub
from .keys import StreamKeys
from .live import Call
from .messages import parse_entries
from .reads import WAKE
from .ring import Entry, Ring
from .shards import FEW_STREAMS, STREAMS_PER_SHARD, Plan, Shard
from .stock import StockRing, before, parse_id
from .tasks import is_cancelled

_LOG = logging.getLogger(__name__)
_COUNT = 64
_COLD_AFTER_SECONDS = 5.0
_WAKE_TTL_MS = 120_000
_OTHER_CONNECTIONS = 2  # one publishes, one reads pages
_START = Position(0, 0)


class BlockingReads:
    """`changed` is called with a topic that has to be read. At most `max_connections` with those of others."""

    def __init__(
        self,
        hub: Hub,
        server: RedisServer,
        keys: StreamKeys,
        contact: Contact,
        changed: Callable[[str], None],
        *,
        interval_seconds: float,
        max_connections: int | None,
    ) -> None:
        self._hub = hub
        self._keys = keys
        self._contact = contact
        self._changed = changed
        self._interval_seconds = interval_seconds
        self._id = uuid.uuid4().hex
        self._plan = Plan(None if max_connections is None else max(1, max_connections - _OTHER_CONNECTIONS))
        self._readers: dict[Shard, Reader] = {}
        self._group: asyncio.TaskGroup | None = None
        self._opened: Callable[[], None] = lambda: None
        self._active: set[str] = set()
        self._heard: set[str] = set()
        self._warm: set[str] = set()
        self._versions: dict[str, int] = {}
        self._seen: dict[str, Position] = {}
        self.server = server
        self.due = math.inf

    @property
    def acknowledged(self) -> AbstractSet[str]:
        return self._hub.topics.keys()

    @property
    def generation(self) -> int:
        """Of the connections."""
        return self._contact.generation

    @property
    def block_seconds(self) -> float:
        """How long a read may block: all of them together return about once a second when nothing happens."""
        return max(self._interval_seconds, float(len(self._readers)))

    def version(self, name: str) -> int:
        return self._versions.get(name, 0)

    def silent(self) -> set[str]:
        silent = self._hub.topics.keys() - self._active
        self._active.clear()
        return silent

    async def listen(self, opened: Callable[[], None]) -> None:
        self._opened = opened
        try:
            async with asyncio.TaskGroup() as self._group:
                opened()
                await asyncio.get_running_loop().create_future()
        except ExceptionGroup as broken:
            raise broken.exceptions[0]  # noqa: B904  # its own cause is the server's word
        finally:
            self._group = None

    async def arrange(self, readable: AbstractSet[str], call: Call) -> None:
        if self._group is None:
            return
        self._follow(self._hub.topics.keys() & readable)
        self._sort()
        self._plan.tidy()
        await self._staff(self._group)
        wakes = [command for reader in self._readers.values() for command in reader.wake()]
        if wakes:
            await call(*wakes)

    async def close(self) -> None:
        """The end of `listen` ended the readers, and every reader closes its connection."""

    def after(self, name: str, *, is_new: bool) -> Position:
        """The id after which the stream of a topic is to be read on.

        On a new connection, or after any was made anew, the server may be another one than the one that told what is
        held: the newest entry is read once more.
        """
        topic = self._hub.topics.get(name)
        ring = topic.ring if topic is not None else None
        held = ring.position if ring is not None else _START
        if ring is not None and (is_new or ring.generation != self.generation) and _has_entries(ring):
            held = before(held)
        return max(held, self._seen.get(name, _START))

    def stream(self, name: str) -> str:
        return self._keys.stream(name)

    def take(self, shard: Shard, stream: bytes, raw: list[Any], generation: int) -> None:
        """What a read gave of one stream; `generation` is of the time when it was asked for."""
        name = self._keys.run_of(stream.decode())
        topic = self._hub.topics.get(name)
        if topic is None:
            return
        ring = topic.ring
        entries = parse_entries(raw)
        if ring is not None and ring.contradicts(entries):
            topic.vanish()
            ring = None
        if ring is not None and entries and _is_held(entries[-1], ring):
            ring.generation = generation  # compared, which is no news
            return
        self._note(name, shard)
        if ring is not None and entries and _follows(entries, ring):
            ring.generation = generation
            topic.extend(ring, entries, self._hub.settings)
            topic.wake()
        else:
            self._seen[name] = parse_id(raw[-1][0])
            self._changed(name)

    def _note(self, name: str, shard: Shard) -> None:
        """There is news of a topic."""
        self._versions[name] = self.version(name) + 1
        self._active.add(name)
        self._heard.add(name)
        if not shard.is_hot:
            self._opened()

    def lost(self, shard: Shard, error: Exception) -> None:
        """A read failed: whether the server is there is told by reading these streams."""
        self._contact.slipped(error)
        self.read_again(shard)

    def renewed(self) -> None:
        """A reader has a new connection."""
        self._contact.renewed()

    def read_again(self, shard: Shard) -> None:
        for name in shard.names:
            self._seen.pop(name, None)
            self._changed(name)

    def _follow(self, wanted: set[str]) -> None:
        known = self._plan.names()
        new, old = wanted - known, known - wanted
        self._plan.drop(old)
        for name in old:
            self._versions.pop(name, None)
            self._seen.pop(name, None)
        self._heard &= wanted
        self._warm &= wanted
        hot = set(islice(new, max(0, STREAMS_PER_SHARD - len(self._warm))))
        self._plan.put(new - hot, is_hot=False)
        self._heard |= hot

    def _sort(self) -> None:
        """What has news moves to the hot shards, and what had none for long enough to the cold ones."""
        self._plan.put(self._heard, is_hot=True)
        self._warm |= self._heard
        now = asyncio.get_running_loop().time()
        if now >= self.due:
            is_worth_it = len(self._hub.topics) > FEW_STREAMS
            silent = self._warm - self._heard if is_worth_it else set[str]()
            self._plan.put(silent, is_hot=False)
            self._warm -= silent
            self._heard.clear()
            self.due = math.inf
        if self._warm:
            self.due = min(self.due, now + _COLD_AFTER_SECONDS)

    async def _staff(self, group: asyncio.TaskGroup) -> None:
        """One reader for every shard of the plan."""
        for shard in self._readers.keys() - set(self._plan.shards):
            await self._readers.pop(shard).close()
        for shard in self._plan.shards:
            if shard not in self._readers:
                self._readers[shard] = Reader(shard, self._keys.wake(self._id, shard.number), self, group)


class Reader:
    """One connection that blocks in a read of the streams of its shard."""

    def __init__(self, shard: Shard, wake_key: str, news: BlockingReads, group: asyncio.TaskGroup) -> None:
        self._shard = shard
        self._wake_key = wake_key
        self._news = news
        self._connection = Connection(news.server)
        self._wakes = 0
        self._asked: set[str] | None = None
        self._is_lost = False
        self._is_refused = False
        self._task = group.create_task(self._run(), name="stream-feed-xread")

    def wake(self) -> list[Command]:
        """What ends the read that is under way, if it does not ask for all that it should."""
        if self._asked is None or self._shard.names <= self._asked:
            return []
        self._asked = None
        self._wakes += 1
        return [WAKE.command([self._wake_key], (self._wakes, _WAKE_TTL_MS))]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while not is_cancelled():
                try:
                    is_well = await self._read()
                except StreamUnavailableError as error:
                    await self._on_loss(error)
                    is_well = False
                if is_well:
                    backoff.reset()
                else:
                    await backoff.wait()
        finally:
            await self._connection.close()

    async def _read(self) -> bool:
        """False: refused, for one of the streams."""
        is_new = not self._connection.is_open
        await self._connection.open()
        if self._is_lost:
            self._is_lost = False
            self._news.renewed()
            self._news.read_again(self._shard)
        generation = self._news.generation
        try:
            reply = await self._blocked(is_new=is_new)
        except ResponseError as error:
            await self._on_refusal(error)
            return False
        self._is_refused = False
        for stream, entries in reply.items() if isinstance(reply, dict) else reply or ():
            if stream.decode() != self._wake_key:
                self._news.take(self._shard, stream, entries, generation)
        return True

    async def _blocked(self, *, is_new: bool) -> Any:
        names = list(self._shard.names)
        self._asked = set(names)
        seconds = self._news.block_seconds
        keys = [self._wake_key, *map(self._news.stream, names)]
        after = [f"{self._wakes}-0", *(str(self._news.after(name, is_new=is_new)) for name in names)]
        command = ("XREAD", "COUNT", _COUNT, "BLOCK", math.ceil(seconds * 1000), "STREAMS", *keys, *after)
        try:
            return await self._connection.ask(command, seconds + self._news.server.timeout_seconds)
        finally:
            self._asked = None

    async def _on_loss(self, error: StreamUnavailableError) -> None:
        await self._connection.close()
        if not self._is_lost:
            self._news.lost(self._shard, error)
        self._is_lost = True

    async def _on_refusal(self, error: ResponseError) -> None:
        """For one of the streams, which reading them one by one finds, or for good: `StreamError`."""
        server = self._news.server
        try:
            await self._connection.ask(("XREAD", "STREAMS", self._wake_key, "0-0"), server.timeout_seconds)
        except ResponseError as refusal:
            raise StreamError(f"{server.name} refused XREAD: {refusal}") from refusal
        if not self._is_refused:
            _LOG.warning("the server refuses to read %d streams at once: %s", len(self._shard), error)
        self._is_refused = True
        self._news.read_again(self._shard)


def _has_entries(ring: Ring) -> bool:
    return ring.tail >= 0 and not isinstance(ring, StockRing)


def _is_held(entry: Entry, ring: Ring) -> bool:
    """An entry that does not contradict the ring."""
    return entry.epoch == ring.epoch and entry.seq <= ring.tail


def _follows(entries: list[Entry], ring: Ring) -> bool:
    """Whether these are contiguous with what the ring holds."""
    first, last = entries[0], entries[-1]
    if first.epoch != ring.epoch or last.epoch != ring.epoch or first.seq > ring.tail + 1:
        return False
    return last.seq - first.seq + 1 == len(entries)
