"""What a Redis server pushes: one subscriber connection, the channels of all topics, and the messages as they come.

Order of things for every topic: SUBSCRIBE, wait for its acknowledgement, read the stream, then take the pushes that
follow. Whatever does not fit (a hole, a message that cannot be read, a new connection) asks for another read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from .._drivers.redis import Connection, RedisServer, ResponseError
from ..errors import StreamError, StreamUnavailableError
from .backoff import Backoff
from .contact import Contact, parts
from .hub import Hub, Topic
from .keys import StreamKeys
from .live import Call
from .messages import Push, parse_push
from .tasks import is_cancelled

_LOG = logging.getLogger(__name__)
_CHANNELS_PER_COMMAND = 256


class Pushes:
    """`acknowledged`: topics whose pushes arrive from now on. `changed` is called with a topic that has to be read."""

    def __init__(
        self,
        hub: Hub,
        server: RedisServer,
        keys: StreamKeys,
        contact: Contact,
        changed: Callable[[str], None],
        *,
        interval_seconds: float,
    ) -> None:
        self._hub = hub
        self._server = server
        self._keys = keys
        self._contact = contact
        self._changed = changed
        self._interval_seconds = interval_seconds
        self._connection = Connection(server)
        self._asked: set[str] = set()
        self._active: set[str] = set()
        self._versions: dict[str, int] = {}
        self._backoff = Backoff()
        self.acknowledged: set[str] = set()
        self.due = math.inf

    def version(self, name: str) -> int:
        """Grows with every message of the topic."""
        return self._versions.get(name, 0)

    def silent(self) -> set[str]:
        """The topics without a message since the last call."""
        silent = self._hub.topics.keys() - self._active
        self._active.clear()
        return silent

    async def listen(self, opened: Callable[[], None]) -> None:
        """For ever; `opened` is called for every new connection, on which nothing is subscribed yet."""
        while not is_cancelled():
            try:
                await self._connection.open()
                self._contact.renewed()
                opened()
                await self._take()
            except StreamUnavailableError as error:
                self._contact.lost("push", error)
                await self._connection.close()
                self._asked.clear()
                self.acknowledged.clear()
                await self._backoff.wait()
            except ResponseError as error:
                raise StreamError(
                    f"{self._server.name} refused SUBSCRIBE: {error}; push='xread' does without pub/sub"
                ) from error

    async def arrange(self, readable: AbstractSet[str], call: Call) -> None:
        """Bring the channels in line with the topics; the listener takes the answers."""
        if not self._connection.is_open:
            return
        wanted = self._hub.topics.keys()
        new, old = wanted - self._asked, self._asked - wanted
        self._asked |= new
        self._asked -= old
        self.acknowledged -= old
        for name in old:
            self._versions.pop(name, None)
        for verb, names in (("UNSUBSCRIBE", old), ("SUBSCRIBE", new)):
            if not await self._send(verb, names):
                return

    async def close(self) -> None:
        await self._connection.close()

    async def _send(self, verb: str, names: Iterable[str]) -> bool:
        for part in parts(names, _CHANNELS_PER_COMMAND):
            try:
                await self._connection.send((verb, *map(self._keys.stream, part)))
            except StreamUnavailableError:
                return False  # the listener finds the same, reconnects, and all of them are new
        return True

    async def _take(self) -> None:
        while not is_cancelled():
            message = await self._connection.read(self._interval_seconds)
            if message is None:
                message = await self._asked_for_life()
            # A connection that opens and says nothing is none: something between may take and drop it.
            self._contact.restored("push")
            self._backoff.reset()
            self._on_message(message)

    async def _asked_for_life(self) -> object:
        """The next message of a connection that was silent for long."""
        await self._connection.send(("PING",))
        # The interval may be shorter than the server takes to answer.
        message = await self._connection.read(max(self._interval_seconds, self._server.timeout_seconds))
        if message is None:
            raise StreamUnavailableError(f"{self._server.name} is silent: no answer to PING on the push side")
        return message

    def _on_message(self, message: object) -> None:
        if not isinstance(message, list) or len(message) < 3:
            return
        kind, channel, body = message[0], bytes(message[1]).decode("utf-8", "replace"), message[2]
        name = self._keys.run_of(channel)
        if kind == b"subscribe":
            self.acknowledged.add(name)
            self._changed(name)
        elif kind == b"message":
            self._versions[name] = self.version(name) + 1
            self._active.add(name)
            topic = self._hub.topics.get(name)
            if topic is not None:
                self._on_push(topic, body)

    def _on_push(self, topic: Topic, body: bytes) -> None:
        try:
            push = parse_push(body)
        except (ValueError, IndexError):
            _LOG.debug("a message of somebody else on the channel of run %r", topic.run_id)
            self._changed(topic.run_id)
        else:
            self._apply(topic, push)

    def _apply(self, topic: Topic, push: Push) -> None:
        ring = topic.ring
        if ring is None or push.epoch != ring.epoch:
            self._changed(topic.run_id)
        elif push.kind == "gone":
            topic.vanish()
        elif push.kind != "event" or push.first > ring.tail + 1:
            self._changed(topic.run_id)
        elif ring.contradicts(push.entries):
            topic.vanish()
            self._changed(topic.run_id)
        else:
            topic.extend(ring, push.entries, self._hub.settings)
            topic.wake()
