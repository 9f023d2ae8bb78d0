"""The bridge between processes, on Redis or Valkey."""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from .._drivers.redis import Command, Lane, RedisServer, Script, check_version
from ..errors import StreamError, StreamUnavailableError
from .base import (
    StreamBridge,
    StreamItem,
    StreamOptions,
    StreamSettings,
    StreamStats,
    at_least,
    not_negative,
    one_of,
)
from .blocking import BlockingReads
from .contact import Contact
from .ends import AGAIN, Ends
from .feed import Feed, FeedTimes
from .hub import Hub
from .keys import StreamKeys
from .lease import Lease
from .live import Live
from .messages import Page, parse_page
from .orphans import Orphans
from .publisher import APPEND, Limits, Publisher
from .pushes import Pushes
from .reads import READ
from .stock import StockPage

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")
CLEANUP = Script(__package__ or "", "cleanup.lua")
_SHORTEST_CHECK_SECONDS = 0.01
REDIS_OPTIONS = (
    "redis_url",
    "key_prefix",
    "max_connections",
    "push",
    "ack",
    "max_pending_events",
    "max_pending_bytes",
    "publish_timeout_seconds",
    "connect_timeout_seconds",
    "close_timeout_seconds",
    "check_interval_seconds",
    "unavailable_after_seconds",
    "lease_seconds",
)


class RedisStreamBridge(StreamBridge):
    """Streams on one Redis >= 7.0 or Valkey >= 7.2, written and read by any number of processes.

    `ack="pipelined"`: `publish` returns once the event is encoded and buffered, and one batch at a time is on its way;
    `publish_end` and `flush` wait for the server. `ack="server"`: every `publish` waits for it.
    Further keywords are the fields of `StreamSettings`, which every backend has.
    A `client` is borrowed: connections of our own are made with its settings, and it is never changed or closed.
    `async with` connects: `StreamUnavailableError` without a server within `connect_timeout_seconds`, `ConfigError`
    if it is too old. Without it the first call connects.
    """

    supports_cross_process = True

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        client: Redis | None = None,
        key_prefix: str = "deerflow:stream_bridge",
        max_connections: int | None = None,
        push: Literal["pubsub", "xread"] = "pubsub",
        ack: Literal["pipelined", "server"] = "pipelined",
        max_pending_events: int = 10_000,
        max_pending_bytes: int = 32 * 2**20,
        publish_timeout_seconds: float = 30.0,
        connect_timeout_seconds: float = 5.0,
        close_timeout_seconds: float = 5.0,
        check_interval_seconds: float = 5.0,
        unavailable_after_seconds: float = 60.0,
        lease_seconds: float | None = 15.0,
        **options: Unpack[StreamOptions],
    ) -> None:
        settings = StreamSettings(**options)
        super().__init__(settings)
        one_of("push", push, ("pubsub", "xread"))
        one_of("ack", ack, ("pipelined", "server"))
        if max_connections is not None:
            at_least("max_connections", max_connections, 3)
        at_least("max_pending_events", max_pending_events, 1)
        at_least("max_pending_bytes", max_pending_bytes, 1)
        for name, value in (
            ("publish_timeout_seconds", publish_timeout_seconds),
            ("connect_timeout_seconds", connect_timeout_seconds),
            ("close_timeout_seconds", close_timeout_seconds),
            ("check_interval_seconds", check_interval_seconds),
            ("unavailable_after_seconds", unavailable_after_seconds),
            ("lease_seconds", lease_seconds or 0),
        ):
            not_negative(name, value)
        self._waits = ack == "server"
        self._pushes = push == "pubsub"
        self._max_connections = max_connections
        self._close_timeout_seconds = close_timeout_seconds
        lease_seconds = lease_seconds or None
        bridge_id = uuid.uuid4().hex
        self._keys = StreamKeys(key_prefix)
        self._server = RedisServer(url=redis_url, client=client, timeout_seconds=connect_timeout_seconds)
        self._lane = Lane(self._server, [APPEND, READ, CLEANUP, AGAIN])
        limits = Limits.of(settings, pushes=self._pushes)
        self._lease = Lease(self._keys.owner(bridge_id), lease_seconds, self._lane)
        self._publisher = Publisher(
            bridge_id,
            self._server,
            self._lane,
            self._keys,
            limits,
            self._lease,
            max_pending_events=max_pending_events,
            max_pending_bytes=max_pending_bytes,
            timeout_seconds=publish_timeout_seconds,
        )
        self._lease.beside(Ends(bridge_id, self._lane, self._keys, self._publisher.buffer, pushes=self._pushes).restore)
        self._orphans = Orphans(bridge_id, self._keys, limits, lease_seconds)
        times = FeedTimes(max(check_interval_seconds, _SHORTEST_CHECK_SECONDS), unavailable_after_seconds)
        self._feed = Feed(settings, self._server, self._keys, times, self._orphans, self._listen, self._enter)

    def stats(self) -> StreamStats:
        hub, publisher = self._feed.hub, self._publisher
        return StreamStats(
            published=publisher.published,
            delivered=hub.delivered,
            gaps=hub.gaps,
            retried=publisher.retried,
            reconnects=self._feed.reconnects,
            orphaned=self._orphans.ended,
            pending_events=len(publisher.buffer),
            pending_bytes=publisher.buffer.bytes,
            subscribers=hub.subscribers,
            topics=len(hub.topics),
            connections=self._server.open_connections,
        )

    async def _open(self) -> None:
        try:
            await check_version(self._lane, self._server.name)
        except BaseException:
            await self._lane.disconnect()
            raise

    def _publish(self, run_id: str, event: str, encoded: bytes) -> Coroutine[Any, Any, None]:
        return self._publisher.publish(run_id, event, encoded, wait=self._waits)

    async def _publish_end(self, run_id: str, reason: str) -> None:
        await self._publisher.publish_end(run_id, reason)

    def _subscribe(
        self, run_id: str, last_event_id: str | None, heartbeat_interval: float
    ) -> AsyncGenerator[StreamItem, None]:
        return self._feed.hub.follow(run_id, last_event_id, heartbeat_interval)

    def _subscribe_batches(self, run_id: str, last_event_id: str | None) -> AsyncGenerator[Sequence[StreamItem], None]:
        return self._feed.hub.follow_batches(run_id, last_event_id)

    async def _exists(self, run_id: str) -> bool:
        return self._publisher.buffer.last(run_id) is not None or await self._look(run_id) is not None

    async def _end_reason(self, run_id: str) -> str | None:
        page = await self._look(run_id)
        return page.reason if page is not None and page.ended else None

    async def _cleanup(self, run_id: str, delay: float) -> None:
        try:
            await self._publisher.flush(run_id)
        except StreamUnavailableError:
            raise
        except StreamError:
            pass  # what was refused is not there to be deleted
        self._publisher.forget(run_id)
        await self._ask(CLEANUP.command(self._keys.of_run(run_id), (math.ceil(delay * 1000), int(self._pushes))))
        if delay == 0:
            self._feed.vanish(run_id)

    async def _flush(self, run_id: str | None) -> None:
        await self._publisher.flush(run_id)

    async def _close(self) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._lane.close)
            stack.push_async_callback(self._lease.close)
            stack.push_async_callback(self._feed.close)
            await self._publisher.close(self._close_timeout_seconds)

    def _listen(self, hub: Hub, contact: Contact, changed: Callable[[str], None]) -> Live:
        interval_seconds = self._feed.times.check_interval_seconds
        if self._pushes:
            return Pushes(hub, self._server, self._keys, contact, changed, interval_seconds=interval_seconds)
        return BlockingReads(
            hub,
            self._server,
            self._keys,
            contact,
            changed,
            interval_seconds=interval_seconds,
            max_connections=self._max_connections,
        )

    async def _look(self, run_id: str) -> Page | StockPage | None:
        reply = await self._ask(READ.command(self._keys.of_run(run_id), ("", "", 0, 0)))
        return parse_page(reply)

    async def _ask(self, command: Command) -> list[bytes]:
        """One command that may be repeated, on a fresh connection if the old one was lost unnoticed."""
        try:
            (reply,) = await self._lane.shielded(command)
        except StreamUnavailableError:
            self._enter()
            (reply,) = await self._lane.shielded(command)
        if isinstance(reply, Exception):
            raise StreamError(f"{self._server.name} refused: {reply}") from reply
        result: list[bytes] = reply
        return result
