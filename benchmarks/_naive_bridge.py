"""The obvious bridges, as peers: what most projects write first, with the semantics of DeerFlow's.

On Redis a transaction per event, and a connection per reader, which takes a look at the stream in three commands and
blocks in XREAD when nothing is there. In memory a list and a condition per run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Self

from redis.asyncio import Redis

HEARTBEAT = ("", "heartbeat", None)
END = ("", "end", None)
PAGE = 64

Event = tuple[str, str, Any]


class NaiveRedisBridge:
    def __init__(self, url: str, prefix: str, *, queue_maxsize: int, ttl_seconds: int = 86400) -> None:
        # By itself redis-py 8 gives up a quiet reader after five seconds, and has room for a hundred.
        limits: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": None, "max_connections": 10**6}
        self._redis = Redis.from_url(url, decode_responses=True, **limits)
        self._prefix = prefix
        self._maxlen = queue_maxsize
        self._ttl_seconds = ttl_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def publish(self, run_id: str, event: str, data: Any) -> None:
        text = json.dumps(data, default=str, ensure_ascii=False, separators=(",", ":"))
        await self._append(run_id, {"kind": "event", "event": event, "data": text})

    async def publish_end(self, run_id: str) -> None:
        await self._append(run_id, {"kind": "end"})

    async def flush(self) -> None:
        """Every `publish` waits for the server."""

    async def subscribe(self, run_id: str, heartbeat_interval: float = 15.0) -> AsyncGenerator[Event, None]:
        key, cursor = self._key(run_id), "0-0"
        while True:
            entries = await self._look(key, cursor)
            if not entries:
                woken = await self._redis.xread({key: cursor}, count=PAGE, block=int(heartbeat_interval * 1000))
                if not woken:
                    yield HEARTBEAT
            for entry_id, fields in entries:
                cursor = entry_id
                if fields["kind"] == "end":
                    yield END
                    return
                yield entry_id, fields["event"], json.loads(fields["data"])

    async def _append(self, run_id: str, fields: dict[Any, Any]) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xadd(self._key(run_id), fields, maxlen=self._maxlen, approximate=True)
            pipe.expire(self._key(run_id), self._ttl_seconds)
            await pipe.execute()

    async def _look(self, key: str, cursor: str) -> list[Any]:
        """What follows the cursor, with the bounds that a gap would be found by."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xrange(key, count=1)
            pipe.xrevrange(key, count=1)
            pipe.xread({key: cursor}, count=PAGE)
            _, _, found = await pipe.execute()
        return found[0][1] if found else []

    def _key(self, run_id: str) -> str:
        return f"{self._prefix}:{run_id}"


@dataclass
class _Log:
    events: list[Event] = field(default_factory=list)
    dropped: int = 0
    numbers: int = 0
    ended: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class NaiveMemoryBridge:
    def __init__(self, *, queue_maxsize: int) -> None:
        self._maxlen = queue_maxsize
        self._logs: dict[str, _Log] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._logs.clear()

    async def publish(self, run_id: str, event: str, data: Any) -> None:
        log = self._log(run_id)
        entry = (f"{int(time.time() * 1000)}-{log.numbers}", event, data)
        log.numbers += 1
        async with log.changed:
            log.events.append(entry)
            surplus = len(log.events) - self._maxlen
            if surplus > 0:
                del log.events[:surplus]
                log.dropped += surplus
            log.changed.notify_all()

    async def publish_end(self, run_id: str) -> None:
        log = self._log(run_id)
        async with log.changed:
            log.ended = True
            log.changed.notify_all()

    async def flush(self) -> None:
        """Everything is there at once."""

    async def subscribe(self, run_id: str, heartbeat_interval: float = 15.0) -> AsyncGenerator[Event, None]:
        log = self._log(run_id)
        place = log.dropped
        while True:
            async with log.changed:
                if place - log.dropped < len(log.events):
                    item = log.events[place - log.dropped]
                    place += 1
                elif log.ended:
                    item = END
                else:
                    try:
                        await asyncio.wait_for(log.changed.wait(), timeout=heartbeat_interval)
                    except TimeoutError:
                        item = HEARTBEAT
                    else:
                        continue
            yield item
            if item is END:
                return

    def _log(self, run_id: str) -> _Log:
        return self._logs.setdefault(run_id, _Log())
