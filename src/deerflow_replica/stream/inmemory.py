"""The bridge of a single process: the hub itself holds the streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Unpack

from ..errors import StreamEndedError, StreamUnavailableError
from .base import REMEMBERED_ENDS, StreamBridge, StreamItem, StreamOptions, StreamSettings, StreamStats
from .hub import Hub, Subscriber, Topic
from .ring import Ring

_YIELD_EVERY = 64
_TRIM_STEP = 64


class InMemoryStreamBridge(StreamBridge):
    """Streams of this process, gone with it. Every `publish` stores at once and never waits for a reader.

    Keywords are the fields of `StreamSettings`: `queue_maxsize`, `max_event_bytes`, `max_stream_bytes`, `live_window`,
    `invalid_cursor`, `resume_gap`, `stream_ttl_seconds`.
    """

    supports_cross_process = False

    def __init__(self, **options: Unpack[StreamOptions]) -> None:
        super().__init__(StreamSettings(**options))
        self._streams = _Streams(self._settings, self._enter)
        self._published = 0

    def stats(self) -> StreamStats:
        hub = self._streams.hub
        return StreamStats(
            published=self._published,
            delivered=hub.delivered,
            gaps=hub.gaps,
            subscribers=hub.subscribers,
            topics=len(hub.topics),
        )

    async def _publish(self, run_id: str, event: str, encoded: bytes) -> None:
        self._streams.append(run_id, event, encoded)
        self._published += 1
        if self._published % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def _publish_end(self, run_id: str, reason: str) -> None:
        self._streams.end(run_id, reason)

    def _subscribe(
        self, run_id: str, last_event_id: str | None, heartbeat_interval: float
    ) -> AsyncGenerator[StreamItem, None]:
        return self._streams.hub.follow(run_id, last_event_id, heartbeat_interval)

    def _subscribe_batches(self, run_id: str, last_event_id: str | None) -> AsyncGenerator[Sequence[StreamItem], None]:
        return self._streams.hub.follow_batches(run_id, last_event_id)

    async def _exists(self, run_id: str) -> bool:
        return self._streams.find(run_id) is not None

    async def _end_reason(self, run_id: str) -> str | None:
        ring = self._streams.find(run_id)
        return ring.end_reason if ring else None

    async def _cleanup(self, run_id: str, delay: float) -> None:
        self._streams.delete(run_id, delay)

    async def _flush(self, run_id: str | None) -> None:
        """Everything is stored when it is accepted."""

    async def _close(self) -> None:
        self._streams.close()


class _Streams:
    """The hub's source: a ring is all there is of a stream."""

    def __init__(self, settings: StreamSettings, enter: Callable[[], None]) -> None:
        self._settings = settings
        self._expiries: dict[str, _Expiry] = {}
        self._ended: dict[str, None] = {}
        self._last_epoch = 0
        self.hub = Hub(settings, self, enter)

    def begin(self, subscriber: Subscriber) -> None:
        ring = subscriber.topic.ring
        subscriber.place(ring.state() if ring else None, ring)

    def refill(self, subscriber: Subscriber, ring: Ring) -> None:
        """There is nowhere else to look."""
        subscriber.conclude(ring.state().gap(subscriber.last_id))

    def release(self, topic: Topic) -> None:
        if topic.subscribers:
            return
        if topic.ring is None:
            self.hub.topics.pop(topic.run_id, None)
        else:
            topic.ring.drop_below(topic.ring.floor)

    def append(self, run_id: str, event: str, encoded: bytes) -> None:
        if self._has_ended(run_id):
            raise StreamEndedError(f"run {run_id!r} has ended: nothing is stored after END")
        topic = self.hub.topic(run_id)
        ring = self._ring(topic)
        ring.append(event, encoded)
        self._trim(topic, ring)
        self._touch(run_id)
        topic.wake()

    def end(self, run_id: str, reason: str) -> None:
        if self._has_ended(run_id):
            return
        topic = self.hub.topic(run_id)
        self._ring(topic).append_end(reason)
        self._ended[run_id] = None
        if len(self._ended) > REMEMBERED_ENDS:
            del self._ended[next(iter(self._ended))]
        self._touch(run_id)
        topic.wake()

    def find(self, run_id: str) -> Ring | None:
        topic = self.hub.topics.get(run_id)
        return topic.ring if topic else None

    def delete(self, run_id: str, delay: float) -> None:
        self._ended.pop(run_id, None)
        if self.find(run_id) is None:
            return
        if delay == 0:
            self._delete(run_id)
        else:
            self._expiries[run_id].fix(delay)

    def close(self) -> None:
        for expiry in self._expiries.values():
            expiry.cancel()
        self._expiries.clear()
        self.hub.heartbeats.stop()
        self.hub.conclude(lambda: StreamUnavailableError("the stream bridge is closed"))
        for topic in list(self.hub.topics.values()):
            topic.ring = None
            self.release(topic)

    def _has_ended(self, run_id: str) -> bool:
        """Remembered beyond the stream's expiry, as by every backend."""
        ring = self.find(run_id)
        return run_id in self._ended or (ring is not None and ring.ended)

    def _ring(self, topic: Topic) -> Ring:
        if topic.ring is None:
            # Ahead of every earlier stream, also when the clock was set back.
            self._last_epoch = max(self._last_epoch + 1, time.time_ns() // 1000)
            self._expiries[topic.run_id] = _Expiry(partial(self._delete, topic.run_id))
            return topic.begin(Ring(self._last_epoch))
        return topic.ring

    def _trim(self, topic: Topic, ring: Ring) -> None:
        settings = self._settings
        ring.fit(settings.max_stream_bytes)
        ring.floor = max(ring.low, ring.floor, ring.last_event + 1 - settings.queue_maxsize)
        limit = min(ring.floor, ring.tail + 1 - max(settings.live_window, settings.queue_maxsize))
        if limit > ring.low:
            ring.drop_below(limit)
        if ring.floor - ring.low >= _TRIM_STEP or not topic.subscribers:
            ring.drop_below(min(ring.floor, topic.slowest(ring)))

    def _touch(self, run_id: str) -> None:
        if self._settings.stream_ttl_seconds:
            self._expiries[run_id].extend(self._settings.stream_ttl_seconds)

    def _delete(self, run_id: str) -> None:
        self._expiries.pop(run_id).cancel()
        topic = self.hub.topics[run_id]
        topic.vanish()
        self.release(topic)


class _Expiry:
    """When a stream is deleted: put off by publishing, until a clean-up fixes it.

    The timer is moved only when it fires, not by every publish.
    """

    def __init__(self, delete: Callable[[], None]) -> None:
        self._delete = delete
        self._due = 0.0
        self._is_fixed = False
        self._timer: asyncio.TimerHandle | None = None

    def extend(self, seconds: float) -> None:
        if not self._is_fixed:
            self._due = asyncio.get_running_loop().time() + seconds
            if self._timer is None:
                self._arm()

    def fix(self, seconds: float) -> None:
        self.cancel()
        self._is_fixed = True
        self._due = asyncio.get_running_loop().time() + seconds
        self._arm()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if asyncio.get_running_loop().time() + 0.001 < self._due:
            self._arm()
        else:
            self._delete()
