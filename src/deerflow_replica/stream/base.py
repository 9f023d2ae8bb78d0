"""What a stream bridge is: its items, its settings and the rules that every backend shares.

A run executes in one process and its events are read in any other. A reader that reconnects with the last id it saw
misses nothing and sees nothing twice, or is told so by one `StreamGap`. Every subscription ends: END, gap or error.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, TypedDict

import orjson

from ..errors import ConfigError, PayloadTooLargeError, StreamUnavailableError
from .payload import encode_payload

REMEMBERED_ENDS = 10_000  # runs per bridge

InvalidCursor = Literal["replay", "tail"]
ResumeGap = Literal["exact", "strict"]


@dataclass(frozen=True)
class StreamEvent:
    """One event of a run: `id` is the resume cursor `<epoch>-<seq>`, `data` the JSON value that was published.

    The subscribers of a process share one object per event: treat `data` as read-only.
    """

    id: str
    event: str
    data: Any

    @classmethod
    def from_stored(cls, event_id: str, event: str, stored: bytes) -> Self:
        """An event over its stored JSON, decoded when `data` is first read."""
        made = object.__new__(cls)
        made.__dict__.update(id=event_id, event=event, _stored=stored)
        return made

    @property
    def stored(self) -> bytes | None:
        """The JSON as it was stored; None for an event that came from no stream."""
        found: bytes | None = self.__dict__.get("_stored")
        return found

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "data" or "_stored" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = self.__dict__["data"] = orjson.loads(self.__dict__["_stored"])
            return value


@dataclass(frozen=True)
class StreamGap:
    """Events after the reader's position are lost. Nothing follows a gap.

    `requested_event_id` is the cursor, or the last id that was delivered; the other two are the first and the last
    event that are still there, None if there are none.
    """

    requested_event_id: str | None
    earliest_available_event_id: str | None
    latest_available_event_id: str | None


HEARTBEAT_SENTINEL: Final = StreamEvent("", "__heartbeat__", None)
END_SENTINEL: Final = StreamEvent("", "__end__", None)

StreamItem = StreamEvent | StreamGap
_SENTINEL_NAMES = frozenset({HEARTBEAT_SENTINEL.event, END_SENTINEL.event})


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Totals since the bridge was made, then what is so now. `connections` counts open sockets."""

    published: int = 0
    delivered: int = 0
    gaps: int = 0
    retried: int = 0
    reconnects: int = 0
    orphaned: int = 0
    pending_events: int = 0
    pending_bytes: int = 0
    subscribers: int = 0
    topics: int = 0
    connections: int = 0


class StreamOptions(TypedDict, total=False):
    """The keywords that every backend's constructor takes: the fields of `StreamSettings`, with its defaults."""

    queue_maxsize: int
    max_event_bytes: int
    max_stream_bytes: int
    live_window: int
    invalid_cursor: InvalidCursor
    resume_gap: ResumeGap
    stream_ttl_seconds: float | None


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The bounds and choices that every backend has. Raises `ConfigError` for a value that cannot be meant.

    Retained are the newest `queue_maxsize` events of a run, fewer if their data exceed `max_stream_bytes`; an attached
    reader may lag `live_window` events, and one that equals `queue_maxsize` means exactly that: nothing is spared for
    it. A cursor that is no id is as none (`invalid_cursor="replay"`) or gives only what comes next ("tail");
    `resume_gap="strict"` is a gap also when only the cursor's own event is gone.
    `stream_ttl_seconds` without a publish delete a stream (0 or None: never).
    """

    queue_maxsize: int = 256
    max_event_bytes: int = 8 * 2**20
    max_stream_bytes: int = 64 * 2**20
    live_window: int = 8192
    invalid_cursor: InvalidCursor = "replay"
    resume_gap: ResumeGap = "exact"
    stream_ttl_seconds: float | None = 86400

    def __post_init__(self) -> None:
        for name in ("queue_maxsize", "max_event_bytes", "max_stream_bytes", "live_window"):
            at_least(name, getattr(self, name), 1)
        one_of("invalid_cursor", self.invalid_cursor, ("replay", "tail"))
        one_of("resume_gap", self.resume_gap, ("exact", "strict"))
        if self.stream_ttl_seconds is not None:
            not_negative("stream_ttl_seconds", self.stream_ttl_seconds)


def at_least(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {value!r}")


def not_negative(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigError(f"{name} must be a time in seconds, 0 or more, not {value!r}")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


class StreamBridge(ABC):
    """Carries the events of runs from the process that executes them to the processes that read them.

    An async context manager. It belongs to the event loop of its first use: another one raises `RuntimeError`.
    After `close()` every method raises `StreamUnavailableError`. Wrong types raise `TypeError`, and an empty run id,
    or an event name that is empty, has CR, LF or NUL, or is a sentinel's, raises `ValueError`.
    """

    supports_cross_process: ClassVar[bool] = False

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._home: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def publish(self, run_id: str, event: str, data: Any) -> None:
        """Append one event. `data` is encoded now, by the rules of `encode_payload`; later changes do not show.

        Events are stored in the order in which the calls began. Raises `StreamEndedError` after END,
        `PayloadTooLargeError`, `TypeError` for data that has no JSON form, and `StreamUnavailableError` if no room
        came free in time; an event whose call raised is not stored.
        """
        self._enter()
        check_run_id(run_id)
        check_event(event)
        encoded = encode_payload(data, run_id=run_id, event=event)
        limit = self._settings.max_event_bytes
        if len(encoded) > limit:
            raise PayloadTooLargeError(
                f"event {event!r} of run {run_id!r} has {len(encoded)} bytes, more than {limit}",
                size=len(encoded),
                limit=limit,
            )
        await self._publish(run_id, event, encoded)

    async def publish_end(self, run_id: str, *, reason: str = "done") -> None:
        """End the stream, stored when this returns. A second END is a no-op and the first reason stays.

        Raises `StreamEndedError` if events of this bridge were refused because somebody else ended the stream.
        """
        self._enter()
        check_run_id(run_id)
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a str, not {type(reason).__name__}")
        _check_utf8("reason", reason)
        await self._publish_end(run_id, reason)

    def subscribe(
        self, run_id: str, *, last_event_id: str | None = None, heartbeat_interval: float = 15.0
    ) -> AsyncGenerator[StreamItem, None]:
        """Read a run's events, in order, until END or a gap.

        Without `last_event_id`: what is retained, then what comes. With the id of an event: strictly what follows it.
        `0` or `0-0`: everything from the first event. A subscription may begin before the stream is there.
        `HEARTBEAT_SENTINEL` comes after `heartbeat_interval` seconds without an item (`math.inf`: never).
        """
        _check_cursor(run_id, last_event_id)
        if isinstance(heartbeat_interval, bool) or not isinstance(heartbeat_interval, (int, float)):
            raise TypeError(f"heartbeat_interval must be a number, not {type(heartbeat_interval).__name__}")
        if not heartbeat_interval > 0:
            raise ValueError(f"heartbeat_interval must be more than 0 seconds, not {heartbeat_interval!r}")
        return self._subscribe(run_id, last_event_id, heartbeat_interval)

    def subscribe_batches(
        self, run_id: str, *, last_event_id: str | None = None
    ) -> AsyncGenerator[Sequence[StreamItem], None]:
        """What `subscribe` yields, without heartbeats, whatever is there at once as one sequence that is not empty."""
        _check_cursor(run_id, last_event_id)
        return self._subscribe_batches(run_id, last_event_id)

    async def stream_exists(self, run_id: str) -> bool:
        """Whether an event or END is retained, or accepted by this bridge. Subscribing creates nothing."""
        self._enter()
        check_run_id(run_id)
        return await self._exists(run_id)

    async def end_reason(self, run_id: str) -> str | None:
        """The reason given with END; None while the stream has not ended, or is not there."""
        self._enter()
        check_run_id(run_id)
        return await self._end_reason(run_id)

    async def cleanup(self, run_id: str, *, delay: float = 0) -> None:
        """Delete the stream `delay` seconds from now (0: it is gone on return), after what was accepted before.

        A second call replaces the first; publishing does not put it off. It outlives this process on a server.
        """
        self._enter()
        check_run_id(run_id)
        if isinstance(delay, bool) or not isinstance(delay, (int, float)):
            raise TypeError(f"delay must be a number, not {type(delay).__name__}")
        if not 0 <= delay < math.inf:
            raise ValueError(f"delay must be 0 or more seconds, not {delay!r}")
        await self._cleanup(run_id, delay)

    async def flush(self, run_id: str | None = None) -> None:
        """Return when everything accepted before the call, of one run or of all, is stored."""
        self._enter()
        if run_id is not None:
            check_run_id(run_id)
        await self._flush(run_id)

    @abstractmethod
    def stats(self) -> StreamStats:
        """Counts of this bridge; no I/O."""

    async def close(self) -> None:
        """Store what is pending and free everything; ends no run. Idempotent."""
        if self._closed:
            return
        self._check_loop()
        self._closed = True
        await self._close()

    async def __aenter__(self) -> Self:
        self._enter()
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _enter(self) -> None:
        if self._closed:
            raise StreamUnavailableError("the stream bridge is closed")
        self._check_loop()

    def _check_loop(self) -> None:
        current = asyncio.get_running_loop()
        if self._home is None:
            self._home = current
        elif self._home is not current:
            raise RuntimeError("a stream bridge belongs to the event loop of its first use; this is another")

    @abstractmethod
    def _publish(self, run_id: str, event: str, encoded: bytes) -> Coroutine[Any, Any, None]: ...

    @abstractmethod
    async def _publish_end(self, run_id: str, reason: str) -> None: ...

    @abstractmethod
    def _subscribe(
        self, run_id: str, last_event_id: str | None, heartbeat_interval: float
    ) -> AsyncGenerator[StreamItem, None]: ...

    async def _subscribe_batches(
        self, run_id: str, last_event_id: str | None
    ) -> AsyncGenerator[Sequence[StreamItem], None]:
        """For a backend that has them only one by one."""
        async with aclosing(self._subscribe(run_id, last_event_id, math.inf)) as items:
            async for item in items:
                yield (item,)

    @abstractmethod
    async def _exists(self, run_id: str) -> bool: ...

    @abstractmethod
    async def _end_reason(self, run_id: str) -> str | None: ...

    @abstractmethod
    async def _cleanup(self, run_id: str, delay: float) -> None: ...

    @abstractmethod
    async def _flush(self, run_id: str | None) -> None: ...

    async def _open(self) -> None:  # noqa: B027  # most backends have nothing to connect to
        """Connect, for a backend that has something to connect to."""

    @abstractmethod
    async def _close(self) -> None: ...


def check_run_id(run_id: object) -> None:
    if not isinstance(run_id, str):
        raise TypeError(f"run_id must be a str, not {type(run_id).__name__}")
    if not run_id:
        raise ValueError("run_id must not be empty")
    _check_utf8("run_id", run_id)


def _check_cursor(run_id: object, last_event_id: object) -> None:
    check_run_id(run_id)
    if last_event_id is not None and not isinstance(last_event_id, str):
        raise TypeError(f"last_event_id must be a str or None, not {type(last_event_id).__name__}")


def check_event(event: object) -> None:
    if not isinstance(event, str):
        raise TypeError(f"event must be a str, not {type(event).__name__}")
    if not event or event in _SENTINEL_NAMES or (not event.isprintable() and any(mark in event for mark in "\r\n\0")):
        raise ValueError(f"event must be a name of one line that is not a sentinel's, not {event!r}")
    _check_utf8("event", event)


def _check_utf8(name: str, value: str) -> None:
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be valid Unicode: {value!r}") from error
